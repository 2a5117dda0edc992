//! Bootstrap data as user data of an instance, within what EC2 takes. Pure.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use provider_sdk::v1::{BootstrapFormat, ErrorReason};
use provider_sdk::{ActuatorError, Bootstrap};

/// What EC2 takes, before it is encoded.
const MAX_BYTES: usize = 16 * 1024;
/// The largest that is taken in: text of this size often fits once it is compressed.
pub const MAX_BOOTSTRAP_BYTES: usize = 64 * 1024;

/// The value of `UserData`. What does not fit as it is, is compressed if the image will
/// know what to do with it: cloud-init does.
pub fn encode(bootstrap: &Bootstrap) -> Result<String, ActuatorError> {
    let data = bootstrap.data();
    if data.len() <= MAX_BYTES {
        return Ok(STANDARD.encode(data));
    }
    if bootstrap.format() != BootstrapFormat::CloudConfig {
        return Err(too_large(format!(
            "the bootstrap data has {} bytes; EC2 takes {MAX_BYTES}, and only cloud-config is compressed. Fetch the rest \
             from elsewhere at boot",
            data.len()
        )));
    }
    let compressed = compress(data).map_err(|error| {
        let message = format!("the bootstrap data cannot be compressed: {error}");
        ActuatorError::new(ErrorReason::ProviderBug, message)
    })?;
    if compressed.len() <= MAX_BYTES {
        return Ok(STANDARD.encode(compressed));
    }
    Err(too_large(format!(
        "the bootstrap data has {} bytes, {} when compressed; EC2 takes {MAX_BYTES}. Fetch the rest from elsewhere at boot",
        data.len(),
        compressed.len()
    )))
}

/// The same bytes for the same data: a replay has to look like the first try.
fn compress(data: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data)?;
    encoder.finish()
}

fn too_large(message: String) -> ActuatorError {
    ActuatorError::new(ErrorReason::BootstrapTooLarge, message)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn text(bytes: usize) -> Vec<u8> {
        b"#cloud-config\n".iter().copied().cycle().take(bytes).collect()
    }

    /// Bytes that do not get smaller.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    fn encoded(data: Vec<u8>, format: BootstrapFormat) -> Result<Vec<u8>, ActuatorError> {
        encode(&Bootstrap::new(data, format)).map(|text| STANDARD.decode(text).expect("base64"))
    }

    #[test]
    fn what_fits_goes_as_it_is() {
        for format in [
            BootstrapFormat::CloudConfig,
            BootstrapFormat::Ignition,
            BootstrapFormat::Raw,
        ] {
            assert_eq!(encoded(noise(MAX_BYTES), format).expect("it fits"), noise(MAX_BYTES));
        }
    }

    #[test]
    fn larger_cloud_config_is_compressed() {
        let sent = encoded(text(MAX_BOOTSTRAP_BYTES), BootstrapFormat::CloudConfig).expect("it fits");
        assert!(sent.len() <= MAX_BYTES && sent.starts_with(&[0x1f, 0x8b]));
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(sent.as_slice())
            .read_to_end(&mut back)
            .expect("gzip");
        assert_eq!(back, text(MAX_BOOTSTRAP_BYTES));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_size() {
        for (data, format) in [
            (noise(2 * MAX_BYTES), BootstrapFormat::CloudConfig),
            (text(MAX_BYTES + 1), BootstrapFormat::Ignition),
            (text(MAX_BYTES + 1), BootstrapFormat::Raw),
        ] {
            let size = data.len().to_string();
            let error = encoded(data, format).expect_err("too large");
            assert_eq!(error.reason(), ErrorReason::BootstrapTooLarge);
            assert!(
                error.message().contains(&size) && error.message().contains("16384"),
                "{error}"
            );
        }
    }
}
