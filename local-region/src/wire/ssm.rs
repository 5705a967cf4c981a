//! Parameters of AWS Systems Manager.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::ApiError;
use crate::{
    region::Region,
    state::{
        ec2::image::ACCOUNT,
        parameters::{Kind, LARGEST, Parameter, Refused},
    },
};

/// The service's name in `X-Amz-Target`.
pub const TARGET: &str = "AmazonSSM";
/// GetParameters takes at most this many names.
const MOST_NAMES: usize = 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutParameter {
    name: String,
    value: String,
    #[serde(default)]
    r#type: Option<Kind>,
    #[serde(default)]
    overwrite: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetParameter {
    name: String,
    #[serde(default)]
    with_decryption: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetParameters {
    names: Vec<String>,
    #[serde(default)]
    with_decryption: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteParameter {
    name: String,
}

/// The parameters that a call is about.
pub fn names(body: &[u8]) -> Vec<String> {
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let one = asked["Name"].as_str().map(str::to_owned);
    let several = asked["Names"].as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned));
    one.into_iter().chain(several).collect()
}

/// Answers a call.
///
/// # Errors
/// The operation is not supported here, or its parameters are not allowed.
pub fn handle(operation: &str, body: &[u8], region: &Region) -> Result<Value, ApiError> {
    match operation {
        "PutParameter" => {
            let PutParameter { name, value, r#type, overwrite } = read(body)?;
            let now = region.clock.now();
            let put = region.change(|world| world.parameters.put(&name, r#type, value, overwrite, now));
            put.map(|version| json!({ "Version": version, "Tier": "Standard" })).map_err(refusal)
        }
        "GetParameter" => {
            let GetParameter { name, with_decryption } = read(body)?;
            let found = region.read(|world| world.parameters.get(&name).cloned()).ok_or_else(not_found)?;
            Ok(json!({ "Parameter": shown(&name, &found, with_decryption, region) }))
        }
        "GetParameters" => {
            let GetParameters { mut names, with_decryption } = read(body)?;
            if names.is_empty() || names.len() > MOST_NAMES {
                return Err(invalid(format!("Names must have 1 to {MOST_NAMES} members.")));
            }
            names.sort();
            names.dedup();
            let (found, missing): (Vec<_>, Vec<_>) = names
                .into_iter()
                .map(|name| (region.read(|world| world.parameters.get(&name).cloned()), name))
                .partition(|(found, _)| found.is_some());
            let found = found.iter().filter_map(|(it, name)| Some(shown(name, it.as_ref()?, with_decryption, region)));
            let missing: Vec<String> = missing.into_iter().map(|(_, name)| name).collect();
            Ok(json!({ "Parameters": found.collect::<Vec<_>>(), "InvalidParameters": missing }))
        }
        "DeleteParameter" => {
            let DeleteParameter { name } = read(body)?;
            region.change(|world| if world.parameters.delete(&name) { Ok(json!({})) } else { Err(not_found()) })
        }
        other => Err(ApiError::unsupported(&format!("Systems Manager's {other}"))),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // What a parser says may quote the value.
    serde_json::from_slice(body)
        .map_err(|_| invalid("The request cannot be read: a key is missing or of another type."))
}

fn shown(name: &str, parameter: &Parameter, decrypted: bool, region: &Region) -> Value {
    let Parameter { kind, value, version, changed } = parameter;
    let value = match (kind, decrypted) {
        // There is no key service here: what stands for the encrypted value is not made of it.
        (Kind::SecureString, false) => STANDARD.encode(region.random::<u128>().to_be_bytes()),
        _ => value.clone(),
    };
    json!({
        "Name": name,
        "Type": kind,
        "Value": value,
        "Version": version,
        "LastModifiedDate": changed.as_second(),
        "ARN": arn(name, &region.config.region),
        "DataType": "text",
    })
}

/// A name that begins with `/` brings the one before it along.
pub fn arn(name: &str, region: &str) -> String {
    format!("arn:aws:ssm:{region}:{ACCOUNT}:parameter/{}", name.trim_start_matches('/'))
}

fn refusal(refused: Refused) -> ApiError {
    match refused {
        Refused::Exists => ApiError::bad(
            "ParameterAlreadyExists",
            "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.",
        ),
        Refused::NoKind => invalid("A parameter type is required when you create a parameter."),
        Refused::Name => {
            invalid("Parameter name: can't be prefixed with \"aws\" or \"ssm\", and has only letters, digits and _.-/")
        }
        Refused::Empty => invalid("The parameter's value must have at least one character."),
        Refused::Large => invalid(format!("Standard tier parameters have at most {LARGEST} bytes.")),
    }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::bad("ValidationException", message)
}

fn not_found() -> ApiError {
    ApiError::bad("ParameterNotFound", "The parameter couldn't be found. Verify the name and try again.")
}
