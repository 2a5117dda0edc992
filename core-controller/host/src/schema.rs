//! The schemas of config kinds, asked once for each process of a provider.

use std::sync::Arc;

use actuator_proto::v1;

use crate::call_error::CallError;
use crate::handle::{ConfigSchema, CredentialId};
use crate::shared::Shared;

/// The most schemas that are kept.
const MAX_SCHEMAS: usize = 64;

/// The schema of a config kind.
pub(crate) async fn get(
    shared: &Arc<Shared>,
    kind: &str,
    schema_version: &str,
) -> Result<Arc<ConfigSchema>, CallError> {
    let key = (kind.to_owned(), schema_version.to_owned());
    let schemas = shared.session().map(|session| session.schemas.clone());
    let known = schemas.as_ref().and_then(|schemas| schemas.lock().get(&key).cloned());
    if let Some(schema) = known {
        return Ok(schema);
    }
    let request = v1::GetConfigSchemaRequest {
        kind: kind.to_owned(),
        schema_version: schema_version.to_owned(),
    };
    let answer = crate::unary::call(shared, &CredentialId::ambient(), request).await?;
    // Verified where the answer was checked, so it has 32 bytes.
    let sha256 = answer.sha256.as_slice().try_into().unwrap_or_default();
    let schema = Arc::new(ConfigSchema {
        json: answer.json_schema.into(),
        sha256,
    });
    // Kept with the process that answered, if it is still the one that was asked.
    let now = shared.session().map(|session| session.schemas.clone());
    if let (Some(before), Some(now)) = (schemas, now)
        && Arc::ptr_eq(&before, &now)
    {
        let mut known = now.lock();
        if known.len() < MAX_SCHEMAS {
            known.insert(key, schema.clone());
        }
    }
    Ok(schema)
}
