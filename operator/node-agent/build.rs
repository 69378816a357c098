//! Client and server code of the kubelet's two gRPC services, from its own definitions (no protoc).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for service in ["deviceplugin/v1beta1", "podresources/v1"] {
        let folder = format!("proto/{service}");
        println!("cargo::rerun-if-changed={folder}/api.proto");
        let descriptors = protox::compile(["api.proto"], [folder])?;
        tonic_prost_build::configure().compile_fds(descriptors)?;
    }
    Ok(())
}
