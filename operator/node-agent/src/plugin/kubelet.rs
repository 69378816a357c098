//! The kubelet's side of the folder: who is there, and registering with it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tonic::transport::Endpoint;

use super::{Config, Error};
use crate::proto::deviceplugin::registration_client::RegistrationClient;
use crate::proto::deviceplugin::{DevicePluginOptions, RegisterRequest};

const VERSION: &str = "v1beta1";
const TIMEOUT: Duration = Duration::from_secs(5);

/// Tells one `kubelet.sock` from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(u64, i64, i64);

impl Identity {
    pub fn of(socket: &Path) -> std::io::Result<Self> {
        // Inode numbers are used again, so the time of creation counts as well.
        std::fs::metadata(socket).map(|m| Self(m.ino(), m.ctime(), m.ctime_nsec()))
    }
}

/// A plugin or DRA driver of NVIDIA's on this node, in words.
pub fn other_plugin(config: &Config) -> Option<String> {
    let advice = "remove it from this node, or install with gpu.plugin: external";
    let named = |folder: &Path, ours: fn(&str) -> bool| {
        let names = std::fs::read_dir(folder).ok()?.flatten();
        let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.find(|name| ours(name))
    };
    if let Some(name) = named(&config.folder, |name| name.starts_with("nvidia") && name.ends_with(".sock")) {
        return Some(format!("NVIDIA's device plugin serves {}; {advice}", config.folder.join(name).display()));
    }
    let driver = named(&config.registry, |name| name.starts_with("gpu.nvidia.com"))?;
    Some(format!("NVIDIA's DRA driver serves {}; {advice}", config.registry.join(driver).display()))
}

pub async fn register(kubelet: &Path, endpoint: &Path, resource: &str) -> Result<(), Error> {
    let channel = async {
        let endpoint = Endpoint::new(format!("unix://{}", kubelet.display()))?;
        endpoint.connect_timeout(TIMEOUT).timeout(TIMEOUT).connect().await
    };
    let channel = channel.await.map_err(|source| Error::Dial { path: kubelet.to_owned(), source })?;
    let name = endpoint.file_name().map(|name| name.to_string_lossy().into_owned());
    let request = RegisterRequest {
        version: VERSION.into(),
        endpoint: name.unwrap_or_default(),
        resource_name: resource.into(),
        options: Some(DevicePluginOptions::default()),
    };
    let registered = RegistrationClient::new(channel).register(request).await;
    registered.map(drop).map_err(|source| Error::Refused { resource: resource.into(), source: Box::new(source) })
}
