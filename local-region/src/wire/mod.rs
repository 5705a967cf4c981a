//! Encoding only: what arrives as AWS's *query* protocol, what leaves as XML; CBOR for CloudWatch, JSON for Systems Manager and
//! CloudTrail. Nothing here decides anything.
//!
//! EC2 flattens lists as `Name.1`, ELBv2 as `Name.member.1`; [`Params::list`] reads both.

pub mod cloudtrail;
pub mod cloudwatch;
pub mod ec2;
pub mod elbv2;
pub mod error;
pub mod json;
pub mod params;
pub mod sigv4;
pub mod ssm;
pub mod sts;
pub mod xml;

pub use error::ApiError;
pub use params::Params;
pub use xml::Xml;
