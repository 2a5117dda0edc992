//! Lists of many pages, bounded: a provider that never ends its list is refused.

use actuator_proto::errors::Recovery;
use actuator_proto::v1;

use crate::call_error::CallError;
use crate::handle::{CredentialId, ProviderHandle, unary};
use crate::unary::Unary;

/// The most items of one list.
const MAX_ITEMS: usize = 200_000;
/// The most pages of one list, empty ones included.
const MAX_PAGES: usize = 10_000;
/// How often a list that is out of date is begun anew.
const MAX_RESTARTS: u32 = 3;

/// A request for a page.
pub(crate) trait Paged: Unary + Clone {
    /// What is listed.
    type Item;
    /// The page that is asked for.
    fn page(&mut self) -> &mut v1::PageRequest;
    /// The items and the token of the next page.
    fn items(response: Self::Response) -> (Vec<Self::Item>, String);
}

macro_rules! paged {
    ($($request:ident, $item:ident, $items:ident;)*) => {$(
        impl Paged for v1::$request {
            type Item = v1::$item;
            fn page(&mut self) -> &mut v1::PageRequest {
                self.page.get_or_insert_default()
            }
            fn items(response: Self::Response) -> (Vec<v1::$item>, String) {
                (response.$items, response.next_page_token)
            }
        }
    )*};
}

paged! {
    ListMachinesRequest, ListedMachine, machines;
    ListClustersRequest, ListedCluster, clusters;
    ListMachineTypesRequest, MachineType, machine_types;
}

/// All items, from one complete list.
pub(crate) async fn all<R: Paged>(
    handle: &ProviderHandle,
    credential: &CredentialId,
    mut request: R,
) -> Result<Vec<R::Item>, CallError> {
    let rpc = request.rpc();
    let mut restarts = 0;
    let mut items = Vec::new();
    let mut pages = 0;
    request.page().page_token.clear();
    loop {
        let response = match unary(handle, credential, request.clone()).await {
            Err(error) if error.classified.recovery == Recovery::RestartList && restarts < MAX_RESTARTS => {
                restarts += 1;
                items.clear();
                request.page().page_token.clear();
                continue;
            }
            outcome => outcome?,
        };
        let (page, next) = R::items(response);
        items.extend(page);
        pages += 1;
        if next.is_empty() {
            return Ok(items);
        }
        let fault = if next == request.page().page_token {
            "the page token of the next page is that of this page; the provider has to be mended"
        } else if items.len() > MAX_ITEMS || pages >= MAX_PAGES {
            "the list does not end; narrow it, or the provider has to be mended"
        } else {
            request.page().page_token = next;
            continue;
        };
        return Err(CallError::defect(handle.name(), rpc, fault));
    }
}
