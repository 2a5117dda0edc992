//! Compiles the control service without protoc.

use std::error::Error;

const FILE: &str = "fake/control/v1/control.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/{FILE}");
    let descriptors = protox::Compiler::new(["proto"])?
        .include_imports(true)
        .include_source_info(true)
        .open_files([FILE])?
        .file_descriptor_set();
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
