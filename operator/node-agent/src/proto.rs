//! The kubelet's gRPC services, generated from `proto/`.

#![allow(clippy::all, clippy::unwrap_used, clippy::panic)] // generated

pub mod deviceplugin {
    tonic::include_proto!("v1beta1");
}

pub mod podresources {
    tonic::include_proto!("v1");
}
