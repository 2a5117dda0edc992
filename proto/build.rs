//! Compiles the `.proto` files without protoc, and writes the `Debug` of every
//! message that has a field marked `sensitive`, so that no secret is ever printed
//! because somebody forgot to list a message here.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use prost_reflect::{DescriptorPool, MessageDescriptor, Value};

const FILES: [&str; 8] = [
    "actuator/discovery/v1/discovery.proto",
    "actuator/v1/cluster.proto",
    "actuator/v1/common.proto",
    "actuator/v1/endpoint.proto",
    "actuator/v1/errors.proto",
    "actuator/v1/identity.proto",
    "actuator/v1/machine.proto",
    "actuator/v1/options.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut compiler = protox::Compiler::new(["."])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?;
    let pool = compiler.descriptor_pool();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let sensitive: Vec<MessageDescriptor> = own_messages(&pool)
        .filter(|message| message.fields().any(|field| is_sensitive(&pool, &field)))
        .collect();
    tonic_prost_build::configure()
        // Maps in order: the digest of a spec is taken over its encoding.
        .btree_map(".")
        .skip_debug(sensitive.iter().map(|message| format!(".{}", message.full_name())))
        .compile_fds(compiler.file_descriptor_set())?;

    std::fs::write(out.join("redacted_debug.rs"), redacted_debug(&pool, &sensitive)?)?;
    std::fs::write(out.join("debug_by_name.rs"), debug_by_name(&pool)?)?;
    write_descriptors(&compiler, &out)?;
    Ok(())
}

/// The messages of our own packages; all of them are at the top level.
fn own_messages(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> + '_ {
    pool.all_messages()
        .filter(|message| message.package_name().starts_with("actuator.") && !message.is_map_entry())
}

fn is_sensitive(pool: &DescriptorPool, field: &prost_reflect::FieldDescriptor) -> bool {
    let Some(option) = pool.get_extension_by_name("actuator.v1.sensitive") else {
        return false;
    };
    let options = field.options();
    options.has_extension(&option) && options.get_extension(&option).as_ref() == &Value::Bool(true)
}

/// `actuator.v1.Condition` is `crate::v1::Condition` in Rust.
fn rust_path(message: &MessageDescriptor) -> String {
    let modules = message
        .package_name()
        .trim_start_matches("actuator.")
        .replace('.', "::");
    format!("crate::{modules}::{}", message.name())
}

fn redacted_debug(pool: &DescriptorPool, messages: &[MessageDescriptor]) -> Result<String, std::fmt::Error> {
    let mut code = String::new();
    for message in messages {
        let path = rust_path(message);
        writeln!(code, "impl ::core::fmt::Debug for {path} {{")?;
        writeln!(
            code,
            "    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{"
        )?;
        writeln!(code, "        f.debug_struct({:?})", message.name())?;
        for field in message.fields() {
            let name = field.name();
            if is_sensitive(pool, &field) {
                writeln!(code, "            .field({name:?}, &crate::Redacted)")?;
            } else {
                writeln!(code, "            .field({name:?}, &self.{name})")?;
            }
        }
        writeln!(code, "            .finish()\n    }}\n}}")?;
    }
    Ok(code)
}

/// For the tests: decodes a message by its full name and prints it.
fn debug_by_name(pool: &DescriptorPool) -> Result<String, std::fmt::Error> {
    let mut code = String::from(
        "fn debug_by_name(name: &str, bytes: &[u8]) -> Option<Result<String, prost::DecodeError>> {\n    Some(match name {\n",
    );
    for message in own_messages(pool) {
        writeln!(
            code,
            "        {:?} => <{} as prost::Message>::decode(bytes).map(|m| format!(\"{{m:?}} {{m:#?}}\")),",
            message.full_name(),
            rust_path(&message)
        )?;
    }
    code.push_str("        _ => return None,\n    })\n}\n");
    Ok(code)
}

fn write_descriptors(compiler: &protox::Compiler, out: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::write(
        out.join("actuator_descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    Ok(())
}
