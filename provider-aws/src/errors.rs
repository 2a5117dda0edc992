//! From the codes of AWS to the reasons of the protocol: one table, as data. What the
//! core then does follows from the reason alone.

use std::time::Duration;

use provider_sdk::ActuatorError;
use provider_sdk::v1::{Effect, ErrorReason};

use crate::client::action::Access;
use crate::client::failure::{Failure, Refusal};

/// An instance was made with this token, and other parameters.
pub const TOKEN_WITH_OTHER_PARAMETERS: &str = "IdempotentParameterMismatch";

/// How a row's code is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    /// This code.
    Is(&'static str),
    /// Every code that begins so.
    Begins(&'static str),
}

/// One row: codes that mean the same to the core.
#[derive(Debug, Clone, Copy)]
struct Row {
    code: Code,
    reason: ErrorReason,
    /// Ask again after; where AWS says nothing itself.
    retry_after: Option<Duration>,
}

const fn row(code: &'static str, reason: ErrorReason) -> Row {
    Row {
        code: Code::Is(code),
        reason,
        retry_after: None,
    }
}

const fn family(prefix: &'static str, reason: ErrorReason) -> Row {
    Row {
        code: Code::Begins(prefix),
        reason,
        retry_after: None,
    }
}

impl Row {
    const fn after(self, seconds: u64) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(seconds)),
            ..self
        }
    }
}

/// Every code that is known; the first row that fits holds, so codes stand before the
/// families that they belong to.
static TABLE: &[Row] = &[
    // Capacity: another zone or type may have some.
    row("InsufficientInstanceCapacity", ErrorReason::InsufficientCapacity),
    row("InsufficientHostCapacity", ErrorReason::InsufficientCapacity),
    row(
        "InsufficientReservedInstanceCapacity",
        ErrorReason::InsufficientCapacity,
    ),
    row("InsufficientCapacityOnHost", ErrorReason::InsufficientCapacity),
    row("InsufficientCapacity", ErrorReason::InsufficientCapacity),
    row("InsufficientAddressCapacity", ErrorReason::InsufficientCapacity),
    row("InsufficientFreeAddressesInSubnet", ErrorReason::InsufficientCapacity),
    row("InsufficientVolumeCapacity", ErrorReason::InsufficientCapacity),
    row("UnfulfillableCapacity", ErrorReason::InsufficientCapacity),
    row("ReservationCapacityExceeded", ErrorReason::InsufficientCapacity),
    row("SpotMaxPriceTooLow", ErrorReason::InsufficientCapacity),
    // What EC2 says of a type that a zone does not have.
    row("Unsupported", ErrorReason::InsufficientCapacity),
    // Quotas.
    row("MaxSpotInstanceCountExceeded", ErrorReason::QuotaExceeded),
    row("InstanceLimitExceeded", ErrorReason::QuotaExceeded),
    row("VcpuLimitExceeded", ErrorReason::QuotaExceeded),
    row("VolumeLimitExceeded", ErrorReason::QuotaExceeded),
    row("MaxIOPSLimitExceeded", ErrorReason::QuotaExceeded),
    row("AddressLimitExceeded", ErrorReason::QuotaExceeded),
    row("NetworkInterfaceLimitExceeded", ErrorReason::QuotaExceeded),
    row("SecurityGroupLimitExceeded", ErrorReason::QuotaExceeded),
    row("SecurityGroupsPerInstanceLimitExceeded", ErrorReason::QuotaExceeded),
    row("SecurityGroupsPerInterfaceLimitExceeded", ErrorReason::QuotaExceeded),
    row("RulesPerSecurityGroupLimitExceeded", ErrorReason::QuotaExceeded),
    row("VpcLimitExceeded", ErrorReason::QuotaExceeded),
    row("SubnetLimitExceeded", ErrorReason::QuotaExceeded),
    row("ResourceLimitExceeded", ErrorReason::QuotaExceeded),
    row("PendingVerification", ErrorReason::QuotaExceeded),
    // Pace.
    row("RequestLimitExceeded", ErrorReason::RateLimited).after(5),
    row("Throttling", ErrorReason::RateLimited).after(5),
    row("ThrottlingException", ErrorReason::RateLimited).after(5),
    row("ThrottledException", ErrorReason::RateLimited).after(5),
    row("RequestThrottled", ErrorReason::RateLimited).after(5),
    row("EC2ThrottledException", ErrorReason::RateLimited).after(5),
    row("TooManyRequestsException", ErrorReason::RateLimited).after(5),
    row("SlowDown", ErrorReason::RateLimited).after(5),
    row("ResourceCountExceeded", ErrorReason::QuotaExceeded),
    // Who asks, and what he may.
    row("UnauthorizedOperation", ErrorReason::MissingPermission),
    row("AccessDenied", ErrorReason::MissingPermission),
    row("AccessDeniedException", ErrorReason::MissingPermission),
    row("OptInRequired", ErrorReason::MissingPermission),
    row("Blocked", ErrorReason::MissingPermission),
    row("AuthFailure", ErrorReason::CredentialsInvalid),
    row("InvalidClientTokenId", ErrorReason::CredentialsInvalid),
    row("UnrecognizedClientException", ErrorReason::CredentialsInvalid),
    row("SignatureDoesNotMatch", ErrorReason::CredentialsInvalid),
    row("IncompleteSignature", ErrorReason::CredentialsInvalid),
    row("InvalidSignatureException", ErrorReason::CredentialsInvalid),
    row("MissingAuthenticationToken", ErrorReason::CredentialsInvalid),
    row("ExpiredToken", ErrorReason::CredentialsExpired),
    row("ExpiredTokenException", ErrorReason::CredentialsExpired),
    row("RequestExpired", ErrorReason::CredentialsExpired),
    // What a config names and is not there.
    row("InvalidAMIID.Malformed", ErrorReason::InvalidConfig),
    family("InvalidAMIID.", ErrorReason::DependencyNotFound),
    row("ParameterNotFound", ErrorReason::DependencyNotFound),
    row("ParameterVersionNotFound", ErrorReason::DependencyNotFound),
    family("InvalidSubnetID.", ErrorReason::DependencyNotFound),
    family("InvalidSubnetId.", ErrorReason::DependencyNotFound),
    row("InvalidSubnet", ErrorReason::DependencyNotFound),
    family("InvalidVpcID.", ErrorReason::DependencyNotFound),
    row("InvalidGroup.InUse", ErrorReason::DependentsExist),
    row("InvalidGroup.Duplicate", ErrorReason::NameConflict),
    row("InvalidGroupId.Malformed", ErrorReason::InvalidConfig),
    family("InvalidGroup.", ErrorReason::DependencyNotFound),
    family("InvalidSecurityGroupID.", ErrorReason::DependencyNotFound),
    family("InvalidSecurityGroupId.", ErrorReason::DependencyNotFound),
    family("InvalidKeyPair.", ErrorReason::DependencyNotFound),
    family("InvalidIamInstanceProfile", ErrorReason::DependencyNotFound),
    row("NoSuchEntity", ErrorReason::DependencyNotFound),
    row("InvalidPlacementGroup.Unknown", ErrorReason::DependencyNotFound),
    row("InvalidCapacityReservationId.NotFound", ErrorReason::DependencyNotFound),
    row("InvalidSnapshot.NotFound", ErrorReason::DependencyNotFound),
    row("InvalidAvailabilityZone", ErrorReason::DependencyNotFound),
    // What a config says and EC2 does not take.
    row("InvalidParameterValue", ErrorReason::InvalidConfig),
    row("InvalidParameterCombination", ErrorReason::InvalidConfig),
    row("InvalidParameter", ErrorReason::InvalidConfig),
    row("InvalidParameterDependency", ErrorReason::InvalidConfig),
    row("InvalidInstanceType", ErrorReason::InvalidConfig),
    row("InvalidBlockDeviceMapping", ErrorReason::InvalidConfig),
    row("InvalidInterface.IpAddressLimitExceeded", ErrorReason::InvalidConfig),
    row("InvalidRequest", ErrorReason::InvalidConfig),
    row("InvalidTenancy", ErrorReason::InvalidConfig),
    row("InvalidPermission.Malformed", ErrorReason::InvalidConfig),
    row("UnsupportedOperation", ErrorReason::InvalidConfig),
    row("UnsupportedInstanceTypeOnHost", ErrorReason::InvalidConfig),
    row("UnsupportedTenancy", ErrorReason::InvalidConfig),
    row("TagLimitExceeded", ErrorReason::InvalidConfig),
    row("InvalidUserData.Malformed", ErrorReason::InvalidField),
    row("InvalidUserData", ErrorReason::InvalidField),
    row("EncodedUserDataTooLarge", ErrorReason::BootstrapTooLarge),
    // What stands in the way for now.
    row("DependencyViolation", ErrorReason::DependentsExist).after(10),
    row("VolumeInUse", ErrorReason::DependentsExist).after(10),
    row("InvalidNetworkInterface.InUse", ErrorReason::DependentsExist).after(10),
    row("OperationNotPermitted", ErrorReason::DeletionProtected),
    row("IncorrectInstanceState", ErrorReason::OperationPending),
    row("IncorrectState", ErrorReason::OperationPending),
    row("ConcurrentTagAccess", ErrorReason::OperationPending),
    // The token was used with other parameters: an instance was made and is not seen yet.
    row("IdempotentParameterMismatch", ErrorReason::OperationPending),
    row("IdempotentInstanceTerminated", ErrorReason::KeyConflict),
    row("InvalidInstanceID.NotFound", ErrorReason::OperationPending),
    row("InvalidInstanceID.Malformed", ErrorReason::MalformedProviderId),
    // AWS itself.
    row("InternalError", ErrorReason::CloudUnavailable),
    row("InternalFailure", ErrorReason::CloudUnavailable),
    row("InternalServerError", ErrorReason::CloudUnavailable),
    row("Unavailable", ErrorReason::CloudUnavailable),
    row("ServiceUnavailable", ErrorReason::CloudUnavailable),
    row("ServerInternal", ErrorReason::CloudUnavailable),
    family("Http5", ErrorReason::CloudUnavailable),
    // A call that is built wrongly is our fault.
    row("InvalidAction", ErrorReason::ProviderBug),
    row("MissingParameter", ErrorReason::ProviderBug),
    row("UnknownParameter", ErrorReason::ProviderBug),
    row("MalformedQueryString", ErrorReason::ProviderBug),
    row("InvalidFilter", ErrorReason::ProviderBug),
];

fn find(code: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| match row.code {
        Code::Is(known) => code == known,
        Code::Begins(prefix) => code.starts_with(prefix),
    })
}

/// What a failed call means for the operation that it was part of, when nothing of the
/// operation was done before.
pub fn error(failure: &Failure) -> ActuatorError {
    match failure {
        Failure::Refused(refusal) => refused(refusal).with_effect(effect(failure)),
        Failure::NotSent { action, why } => ActuatorError::new(
            ErrorReason::CloudUnavailable,
            format!("AWS cannot be reached for {}: {why}", action.name()),
        )
        .with_effect(Effect::None),
        Failure::Lost { action, why } => ActuatorError::new(
            ErrorReason::CloudUnavailable,
            format!("AWS gave no answer to {}: {why}", action.name()),
        )
        .with_effect(effect(failure)),
        Failure::Credentials { action, why } => ActuatorError::new(
            ErrorReason::CredentialsInvalid,
            format!("there are no credentials for {}: {why}", action.name()),
        ),
    }
}

/// What was left behind. Only a mutation can have changed anything, and most errors say
/// that it has not, a lack of capacity (which has the status 500) among them.
fn effect(failure: &Failure) -> Effect {
    let unknown = match failure {
        Failure::Lost { .. } => true,
        Failure::NotSent { .. } | Failure::Credentials { .. } => false,
        Failure::Refused(refusal) => match find(&refusal.code).map(|row| row.reason) {
            None | Some(ErrorReason::CloudUnavailable) => refusal.status >= 500,
            Some(_) => refusal.code == TOKEN_WITH_OTHER_PARAMETERS,
        },
    };
    if unknown && failure.action().access() == Access::Write {
        Effect::Unknown
    } else {
        Effect::None
    }
}

fn refused(refusal: &Refusal) -> ActuatorError {
    let action = refusal.action.name();
    let row = find(&refusal.code);
    let reason = row.map_or(ErrorReason::CloudUnclassified, |row| row.reason);
    let mut error = ActuatorError::new(reason, format!("{action}: {} ({})", refusal.message, refusal.code))
        .with_cloud_code(&refusal.code)
        .with_metadata("action", refusal.action.permission());
    if !refusal.request_id.is_empty() {
        error = error.with_cloud_request_id(&refusal.request_id);
    }
    if let Some(wait) = refusal.retry_after.or_else(|| row?.retry_after) {
        error = error.with_retry_after(wait);
    }
    match reason {
        ErrorReason::QuotaExceeded => error.with_quota(format!("aws:{}", refusal.code), &refusal.message),
        _ => error,
    }
}

/// The same when something of the operation was done before.
pub fn after_changes(failure: &Failure) -> ActuatorError {
    let error = error(failure);
    if error.effect() == Effect::None {
        error.with_effect(Effect::Partial)
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use actuator_proto::errors::table::rule_for;
    use provider_sdk::v1::ErrorReason as R;

    use super::*;
    use crate::client::action::Action;

    fn refusal(code: &str, status: u16) -> Failure {
        Failure::Refused(Refusal {
            action: Action::RunInstances,
            status,
            code: code.to_owned(),
            message: "what AWS says".to_owned(),
            request_id: "r-1".to_owned(),
            retry_after: None,
        })
    }

    /// The codes that the contract with operators names, each with what it has to mean.
    #[test]
    fn each_code_has_its_reason() {
        for (code, status, reason, effect) in [
            (
                "InsufficientInstanceCapacity",
                500,
                R::InsufficientCapacity,
                Effect::None,
            ),
            ("MaxSpotInstanceCountExceeded", 400, R::QuotaExceeded, Effect::None),
            ("InstanceLimitExceeded", 400, R::QuotaExceeded, Effect::None),
            ("VcpuLimitExceeded", 400, R::QuotaExceeded, Effect::None),
            ("RequestLimitExceeded", 503, R::RateLimited, Effect::None),
            ("UnauthorizedOperation", 403, R::MissingPermission, Effect::None),
            ("AuthFailure", 401, R::CredentialsInvalid, Effect::None),
            ("ExpiredToken", 400, R::CredentialsExpired, Effect::None),
            ("InvalidAMIID.NotFound", 400, R::DependencyNotFound, Effect::None),
            ("InvalidAMIID.Unavailable", 400, R::DependencyNotFound, Effect::None),
            ("InvalidAMIID.Malformed", 400, R::InvalidConfig, Effect::None),
            ("InvalidSubnetID.NotFound", 400, R::DependencyNotFound, Effect::None),
            ("IdempotentParameterMismatch", 400, R::OperationPending, Effect::Unknown),
            ("IdempotentInstanceTerminated", 400, R::KeyConflict, Effect::None),
            ("DependencyViolation", 400, R::DependentsExist, Effect::None),
            ("InternalError", 500, R::CloudUnavailable, Effect::Unknown),
            ("Unavailable", 503, R::CloudUnavailable, Effect::Unknown),
            ("Http502", 502, R::CloudUnavailable, Effect::Unknown),
            ("SomethingNew", 400, R::CloudUnclassified, Effect::None),
            ("SomethingNew", 500, R::CloudUnclassified, Effect::Unknown),
        ] {
            let error = error(&refusal(code, status));
            assert_eq!(
                (error.reason(), error.effect()),
                (reason, effect),
                "{code} with {status}"
            );
            assert!(error.message().contains("what AWS says") && error.message().contains(code));
        }
    }

    #[test]
    fn a_read_leaves_nothing_behind_whatever_happens() {
        let lost = Failure::Lost {
            action: Action::DescribeInstances,
            why: "reset".to_owned(),
        };
        assert_eq!(error(&lost).effect(), Effect::None);
        let lost = Failure::Lost {
            action: Action::RunInstances,
            why: "reset".to_owned(),
        };
        assert_eq!(
            (error(&lost).reason(), error(&lost).effect()),
            (R::CloudUnavailable, Effect::Unknown)
        );
        let unsent = Failure::NotSent {
            action: Action::RunInstances,
            why: "refused".to_owned(),
        };
        assert_eq!(error(&unsent).effect(), Effect::None);
    }

    #[test]
    fn what_helps_travels_with_the_error() {
        let status = tonic::Status::from(error(&refusal("RequestLimitExceeded", 503)));
        let classified = actuator_proto::errors::Classified::from_status(&status);
        assert_eq!(classified.retry_after, Some(Duration::from_secs(5)));
        assert_eq!(classified.cloud_code.as_deref(), Some("RequestLimitExceeded"));
        assert_eq!(classified.cloud_request_id.as_deref(), Some("r-1"));
    }

    #[test]
    fn what_aws_says_itself_about_waiting_goes_first() {
        let Failure::Refused(mut told) = refusal("RequestLimitExceeded", 503) else {
            panic!("a refusal")
        };
        told.retry_after = Some(Duration::from_secs(42));
        let status = tonic::Status::from(error(&Failure::Refused(told)));
        let classified = actuator_proto::errors::Classified::from_status(&status);
        assert_eq!(classified.retry_after, Some(Duration::from_secs(42)));
    }

    #[test]
    fn no_row_hides_another_and_every_reason_is_registered() {
        for (index, row) in TABLE.iter().enumerate() {
            let code = match row.code {
                Code::Is(code) => code.to_owned(),
                Code::Begins(prefix) => format!("{prefix}x"),
            };
            let found = TABLE
                .iter()
                .position(|other| std::ptr::eq(other, find(&code).unwrap_or(row)));
            assert_eq!(found, Some(index), "{code} is hidden by a row before it");
            assert!(rule_for(row.reason).is_some(), "{code}");
        }
    }
}
