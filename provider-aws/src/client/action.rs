//! Every action of AWS that this provider calls. What is not here cannot be called, and
//! `deploy/aws/iam-policy.json` is compared with it.

/// Which service an action belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// EC2, in its Query protocol.
    Ec2,
    /// Systems Manager, in JSON 1.1.
    Ssm,
}

impl Service {
    /// As it stands in host names and signatures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Ssm => "ssm",
        }
    }
}

/// Whether a call changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It does not: it may be sent again.
    Read,
    /// It does: it is sent once, and the core decides about the rest.
    Write,
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident $service:ident $access:ident,)*) => {
        /// An action of AWS.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As AWS calls it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Whose it is.
            pub fn service(self) -> Service {
                match self {
                    $(Self::$name => Service::$service,)*
                }
            }

            /// Whether it changes anything.
            pub fn access(self) -> Access {
                match self {
                    $(Self::$name => Access::$access,)*
                }
            }
        }
    };
}

actions! {
    /// Makes an instance with its volumes and interfaces.
    RunInstances Ec2 Write,
    /// Ends instances.
    TerminateInstances Ec2 Write,
    /// Looks at instances.
    DescribeInstances Ec2 Read,
    /// Looks at volumes.
    DescribeVolumes Ec2 Read,
    /// Removes a volume that its instance has left.
    DeleteVolume Ec2 Write,
    /// Looks at network interfaces.
    DescribeNetworkInterfaces Ec2 Read,
    /// Removes a network interface that its instance has left.
    DeleteNetworkInterface Ec2 Write,
    /// Writes tags.
    CreateTags Ec2 Write,
    /// Takes tags off.
    DeleteTags Ec2 Write,
    /// Finds images.
    DescribeImages Ec2 Read,
    /// Finds the regions of the account.
    DescribeRegions Ec2 Read,
    /// Looks at networks.
    DescribeVpcs Ec2 Read,
    /// Looks at subnets.
    DescribeSubnets Ec2 Read,
    /// Looks at security groups.
    DescribeSecurityGroups Ec2 Read,
    /// Makes a security group.
    CreateSecurityGroup Ec2 Write,
    /// Removes a security group.
    DeleteSecurityGroup Ec2 Write,
    /// Lets traffic in.
    AuthorizeSecurityGroupIngress Ec2 Write,
    /// Stops letting traffic in.
    RevokeSecurityGroupIngress Ec2 Write,
    /// Reads the id of an image from where its maker publishes it.
    GetParameter Ssm Read,
}

impl Action {
    /// As it stands in a policy.
    pub fn permission(self) -> String {
        format!("{}:{}", self.service().name(), self.name())
    }
}
