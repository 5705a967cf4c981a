//! Key pairs.

use std::sync::Arc;

use super::{
    Answer, done,
    filter::{Filters, one},
    key_material, refuse_dry_run,
    tags::{specified, tag_set},
    time,
};
use crate::{
    region::Region,
    state::ec2::{KeyPair, key_pair::NewKeyPair},
    wire::{ApiError, Params, Xml},
};

/// The private key is in this answer and nowhere else.
pub async fn create_key_pair(params: &Params, region: &Arc<Region>) -> Answer {
    let name = params.require("KeyName")?.to_owned();
    let kind = match params.get("KeyType").unwrap_or("rsa") {
        "rsa" => key_material::Kind::Rsa,
        "ed25519" => key_material::Kind::Ed25519,
        other => return Err(ApiError::invalid("KeyType", other, "It is rsa or ed25519.")),
    };
    if params.get("KeyFormat").is_some_and(|format| format != "pem") {
        return Err(ApiError::unsupported("key formats other than pem"));
    }
    let tags = specified(params, "key-pair", &["key-pair"])?;
    refuse_dry_run(params)?;
    region.read(|world| world.ec2.refuse_taken_key_name(&name))?;
    // Looking for primes takes a noticeable part of a second.
    let made = tokio::task::spawn_blocking(move || key_material::generate(kind)).await;
    let material = made
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| ApiError::with_status(500, "InternalError", "The key could not be generated."))?;
    let now = region.clock.now();
    let new = NewKeyPair {
        name,
        key_type: kind.name().to_owned(),
        fingerprint: material.fingerprint,
        public_key: material.public_key,
        tags,
    };
    let mut answer = region.change(|world| world.ec2.add_key_pair(new, now).map(describe))?;
    answer.push(Xml::text("keyMaterial", material.private_key));
    Ok(answer)
}

pub fn import_key_pair(params: &Params, region: &Arc<Region>) -> Answer {
    let name = params.require("KeyName")?.to_owned();
    let material = key_material::read_public(params.require("PublicKeyMaterial")?)?;
    let tags = specified(params, "key-pair", &["key-pair"])?;
    refuse_dry_run(params)?;
    let now = region.clock.now();
    let new = NewKeyPair {
        name,
        key_type: material.kind.name().to_owned(),
        fingerprint: material.fingerprint,
        public_key: material.public_key,
        tags,
    };
    region.change(|world| world.ec2.add_key_pair(new, now).map(describe))
}

fn describe(pair: &KeyPair) -> Vec<Xml> {
    vec![
        Xml::text("keyName", &pair.name),
        Xml::text("keyPairId", &pair.key_pair_id),
        Xml::text("keyFingerprint", &pair.fingerprint),
        tag_set(pair.tags.current()),
    ]
}

pub fn describe_key_pairs(params: &Params, region: &Arc<Region>) -> Answer {
    let moment = region.moment();
    let (names, ids) = (params.list("KeyName"), params.list("KeyPairId"));
    let with_public_key = params.parse::<bool>("IncludePublicKey")?.unwrap_or(false);
    region.read(|world| {
        let absent = names
            .iter()
            .find(|name| world.ec2.key_pair(name).is_none())
            .or_else(|| ids.iter().find(|id| !world.ec2.key_pairs().any(|pair| pair.key_pair_id == **id)));
        if let Some(absent) = absent {
            return Err(ApiError::bad("InvalidKeyPair.NotFound", format!("The key pair '{absent}' does not exist")));
        }
        let everything = names.is_empty() && ids.is_empty();
        let candidates = world.ec2.key_pairs().filter(|pair| {
            everything || names.contains(&pair.name.as_str()) || ids.contains(&pair.key_pair_id.as_str())
        });
        let values = |pair: &KeyPair, name: &str| match name {
            "fingerprint" => one(&pair.fingerprint),
            "key-name" => one(&pair.name),
            "key-pair-id" => one(&pair.key_pair_id),
            _ => None,
        };
        let chosen = Filters::of(params).select(candidates, |pair| pair.tags.seen(moment), values)?;
        let items = chosen.into_iter().map(|pair| {
            let mut children = vec![
                Xml::text("keyPairId", &pair.key_pair_id),
                Xml::text("keyName", &pair.name),
                Xml::text("keyType", &pair.key_type),
                Xml::text("keyFingerprint", &pair.fingerprint),
                Xml::text("createTime", time(pair.created_at)),
                tag_set(pair.tags.seen(moment)),
            ];
            children.extend(with_public_key.then(|| Xml::text("publicKey", &pair.public_key)));
            children
        });
        Ok(vec![Xml::list("keySet", "item", items)])
    })
}

pub fn delete_key_pair(params: &Params, region: &Arc<Region>) -> Answer {
    let (name, id) = (params.get("KeyName"), params.get("KeyPairId"));
    if name.is_none() && id.is_none() {
        return Err(ApiError::missing("KeyName"));
    }
    refuse_dry_run(params)?;
    let deleted = region.change(|world| Ok::<_, ApiError>(world.ec2.delete_key_pair(name, id)))?;
    let mut answer = done()?;
    answer.extend(deleted.map(|pair| Xml::text("keyPairId", pair.key_pair_id)));
    Ok(answer)
}
