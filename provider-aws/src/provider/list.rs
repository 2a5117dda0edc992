//! The list of machines, for orphans. EC2's own page tokens are longer than those of the
//! protocol, so that a page goes on behind the last id of the one before.

use provider_sdk::v1::{self, ErrorReason};
use provider_sdk::{ActuatorError, CallContext, ListMachines, Page, PageBuilder};

use super::AwsProvider;
use crate::client::query::Filter;
use crate::config::cluster::AwsClusterConfig;
use crate::ec2::instances;
use crate::machine::plan::{self, Life};
use crate::machine::status;
use crate::tags::{self, CLUSTER_UID, MACHINE_KEY, MANAGEMENT_CLUSTER};
use crate::{config, errors};

/// What the tokens of this version begin with.
const VERSION: &str = "v1";

impl AwsProvider {
    pub(super) async fn page_of_machines(
        &self,
        context: &CallContext,
        request: ListMachines<AwsClusterConfig>,
    ) -> Result<Page<v1::ListedMachine>, ActuatorError> {
        let after = request.page.token.as_deref().map(read_token).transpose()?;
        let mut regions = match &request.config {
            Some(config) => vec![config.region.clone()],
            None => self.every_region(context).await?,
        };
        regions.sort();
        let mut filters = vec![
            Filter::exactly("tag-key", [MACHINE_KEY]),
            Filter::tag(MANAGEMENT_CLUSTER, [&request.management_cluster_id]),
        ];
        filters.extend(request.cluster_uid.as_ref().map(|uid| Filter::tag(CLUSTER_UID, [uid])));
        let mut page = PageBuilder::new(request.page.size);
        let mut last: Option<(String, String)> = None;
        for region in regions {
            if after.as_ref().is_some_and(|(behind, _)| region < *behind) {
                continue;
            }
            let caller = self.caller(context, &region)?;
            let found = instances::describe(&caller.client, &filters).await;
            let mut found = found.map_err(|failure| errors::error(&failure))?;
            found.sort_by(|one, other| one.id.cmp(&other.id));
            for instance in found {
                let place = (region.clone(), instance.id.clone());
                if plan::life(&instance) == Life::Ended || after.as_ref().is_some_and(|after| place <= *after) {
                    continue;
                }
                let tags = instance.tags();
                let listed = v1::ListedMachine {
                    ownership: Some(tags::ownership(&tags)),
                    idempotency_key: tags.get(MACHINE_KEY).cloned().unwrap_or_default(),
                    created_at: status::created_at(&instance),
                    status: Some(self.machine_status(&instance)),
                };
                if page.push(listed).is_err() {
                    return Ok(page.finish(last.map(|(region, id)| format!("{VERSION}/{region}/{id}"))));
                }
                last = Some(place);
            }
        }
        Ok(page.finish(None))
    }
}

/// Behind which region and instance a page begins.
fn read_token(token: &str) -> Result<(String, String), ActuatorError> {
    let mut parts = token.split('/');
    let read = (parts.next(), parts.next(), parts.next(), parts.next());
    match read {
        (Some(VERSION), Some(region), Some(id), None) if config::is_region(region) && config::is_id(id, "i") => {
            Ok((region.to_owned(), id.to_owned()))
        }
        _ => Err(ActuatorError::new(
            ErrorReason::PageTokenExpired,
            "the page token is none of this provider; start the list again",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tokens_of_ours_are_read() {
        let token = "v1/eu-central-1/i-0123456789abcdef0";
        assert_eq!(
            read_token(token).expect("a token"),
            ("eu-central-1".to_owned(), "i-0123456789abcdef0".to_owned())
        );
        for other in [
            "",
            "x",
            "v2/eu-central-1/i-0123456789abcdef0",
            "v1/eu-central-1/x",
            "v1/eu-central-1/i-0123456789abcdef0/x",
        ] {
            let error = read_token(other).expect_err(other);
            assert_eq!(error.reason(), ErrorReason::PageTokenExpired);
        }
    }
}
