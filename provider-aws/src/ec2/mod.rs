//! What is said to EC2 and Systems Manager: typed requests and answers for the actions in
//! use. Not for: what is asked and when.

pub mod instances;
pub mod network;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::client::action::Action;
use crate::client::failure::Failure;
use crate::client::query::{Filter, Parameters};

/// Tags of a resource.
pub type Tags = BTreeMap<String, String>;

/// The largest page of a Describe call.
const PAGE: u32 = 1000;
/// The most pages that are read: a bound, not a limit that anybody should meet.
const MAX_PAGES: usize = 200;

/// `<xSet><item>…</item></xSet>`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct List<T> {
    /// What is in it.
    #[serde(rename = "item", default = "Vec::new")]
    pub items: Vec<T>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

/// A tag as it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

impl List<Tag> {
    /// As a map.
    pub fn to_map(&self) -> Tags {
        self.items
            .iter()
            .map(|tag| (tag.key.clone(), tag.value.clone()))
            .collect()
    }
}

impl List<Tag> {
    /// From a map.
    fn from_map(tags: &Tags) -> Self {
        let tag = |(key, value): (&String, &String)| Tag {
            key: key.clone(),
            value: value.clone(),
        };
        Self {
            items: tags.iter().map(tag).collect(),
        }
    }
}

/// An answer that has to be nothing but a success.
#[derive(Debug, Deserialize)]
struct Done {}

/// A page of a Describe call.
trait Page: DeserializeOwned {
    type Item;

    fn take(self) -> (Vec<Self::Item>, Option<String>);
}

/// Reads every page.
async fn every<P: Page>(client: &Client, action: Action, parameters: Parameters) -> Result<Vec<P::Item>, Failure> {
    let mut all = Vec::new();
    let mut token: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let page: P = client
            .query(action, parameters.clone().with_some("NextToken", token.as_ref()))
            .await?;
        let (items, next) = page.take();
        all.extend(items);
        token = next.filter(|next| !next.is_empty());
        if token.is_none() {
            return Ok(all);
        }
    }
    Err(Failure::Lost {
        action,
        why: format!("there are more than {MAX_PAGES} pages"),
    })
}

/// Reads every page of what fits the filters.
async fn matching<P: Page>(client: &Client, action: Action, filters: &[Filter]) -> Result<Vec<P::Item>, Failure> {
    every::<P>(
        client,
        action,
        Parameters::new().with("MaxResults", PAGE).with_filters(filters),
    )
    .await
}

/// Writes tags on all of these at once.
pub async fn create_tags(client: &Client, ids: &[String], tags: &Tags) -> Result<(), Failure> {
    let parameters = Parameters::new().with_list("ResourceId", ids).with_tags("Tag", tags);
    client.query::<Done>(Action::CreateTags, parameters).await.map(|_| ())
}

/// Takes tags off all of these.
pub async fn delete_tags(client: &Client, ids: &[String], keys: &[String]) -> Result<(), Failure> {
    let parameters = keys
        .iter()
        .enumerate()
        .fold(Parameters::new().with_list("ResourceId", ids), |all, (index, key)| {
            all.with(format!("Tag.{}.Key", index + 1), key)
        });
    client.query::<Done>(Action::DeleteTags, parameters).await.map(|_| ())
}

/// Reads a parameter that its maker publishes.
pub async fn get_parameter(client: &Client, name: &str) -> Result<String, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        parameter: Parameter,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Parameter {
        value: String,
    }
    let answer: Answer = client
        .json(Action::GetParameter, &serde_json::json!({ "Name": name }))
        .await?;
    Ok(answer.parameter.value)
}

/// The names of the regions that the account may use.
pub async fn describe_regions(client: &Client) -> Result<Vec<String>, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "regionInfo", default)]
        regions: List<Region>,
    }
    #[derive(Deserialize)]
    struct Region {
        #[serde(rename = "regionName")]
        name: String,
    }
    let answer: Answer = client.query(Action::DescribeRegions, Parameters::new()).await?;
    Ok(answer.regions.items.into_iter().map(|region| region.name).collect())
}
