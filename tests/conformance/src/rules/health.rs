//! `grpc.health.v1`, which orchestrators ask.

use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::context::{Context, Expected as _};
use crate::dial::Connection;
use crate::holds;
use crate::rule::{
    Rule,
    Severity::{Major, Minor},
    Stop, Verdict,
};

/// What every provider serves.
const SERVICES: [&str; 4] = [
    "actuator.discovery.v1.DiscoveryService",
    "actuator.v1.IdentityService",
    "actuator.v1.ClusterService",
    "actuator.v1.MachineService",
];

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required(
            "health.overall",
            Major,
            "grpc.health.v1 says SERVING for the whole.",
            overall,
        ),
        Rule::required(
            "health.each-service",
            Minor,
            "grpc.health.v1 says SERVING for each service.",
            each,
        ),
        Rule::required(
            "health.unknown-service",
            Minor,
            "grpc.health.v1 answers NOT_FOUND for a service that is not there.",
            unknown,
        ),
        Rule::required(
            "health.watch",
            Minor,
            "Health.Watch tells the present state first.",
            watch,
        ),
    ]
}

fn client(context: &Context) -> HealthClient<Connection> {
    let connection = context.calls.connection().clone();
    let origin = connection.origin.clone();
    HealthClient::with_origin(connection, origin)
}

async fn check(context: &Context, service: &str) -> Result<ServingStatus, tonic::Status> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    Ok(client(context).check(request).await?.into_inner().status())
}

async fn overall(context: Context) -> Verdict {
    let status = check(&context, "").await.expected("Health.Check")?;
    holds!(status == ServingStatus::Serving, "it is {status:?}");
    Ok(())
}

async fn each(context: Context) -> Verdict {
    for service in SERVICES {
        let status = check(&context, service)
            .await
            .expected(&format!("Health.Check of {service}"))?;
        holds!(status == ServingStatus::Serving, "{service} is {status:?}");
    }
    Ok(())
}

async fn unknown(context: Context) -> Verdict {
    let answer = check(&context, "actuator.v1.NoSuchService").await;
    context
        .code(answer, &[Code::NotFound], "the health of a service that is not there")
        .map(|_| ())
}

async fn watch(context: Context) -> Verdict {
    let request = HealthCheckRequest { service: String::new() };
    let mut stream = client(&context)
        .watch(request)
        .await
        .expected("Health.Watch")?
        .into_inner();
    let first = tokio::time::timeout(std::time::Duration::from_secs(5), stream.next())
        .await
        .map_err(|_| Stop::broken("nothing came within 5 s"))?
        .ok_or_else(|| Stop::broken("the stream ended at once"))?
        .expected("Health.Watch")?;
    holds!(first.status() == ServingStatus::Serving, "it is {:?}", first.status());
    Ok(())
}
