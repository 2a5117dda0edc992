//! In the making.
use std::sync::Arc;

use crate::shared::Shared;

pub(crate) async fn run(_shared: Arc<Shared>) {
    std::future::pending::<()>().await;
}
