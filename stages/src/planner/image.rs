//! How the image comes about that green is launched from: it is there, or it is baked; before that, its artifact is there,
//! or it is built and published.

use alcedo_images::{base::BuildBase, base_match};
use alcedo_pipeline::{
    ids::StepId,
    plan::{Sign, Stage},
    units::Span,
};

use super::{Case, Draft, PlanError, no_address, unknown_version, why};
use crate::{
    action::Action,
    bake, build,
    facts::{Facts, Image},
    ingress, publish,
    signature::VARIABLE,
};

/// The lease outlives the stage's own deadline by this, so that a slow bake is not cut off by its own lease.
const LEASE_MARGIN_SECONDS: u64 = 300;

/// The image to launch from: one that exists, or `None` for the one that these steps bake.
pub(super) fn steps<'a>(case: &Case<'a>, draft: &mut Draft) -> Result<Option<&'a Image>, PlanError> {
    let Case { scope, facts, target, .. } = case;
    let pipeline = case.pipeline();
    let known = facts.fingerprint.as_deref();
    let of_version = |image: &&Image| {
        image.version == target.version
            && image.available
            && (!asks_for_signatures(case) || is_vouched_for(image, facts))
    };
    let same = facts.images.iter().filter(of_version).find(|image| Some(image.fingerprint.as_str()) == known);
    if let Some(image) = same {
        draft.note(format!("bake: {} has the same fingerprint", image.name));
        return Ok(Some(image));
    }
    if facts.release.is_none() && !target.builds {
        // Only an image is left of this version: it is what there is.
        let image = facts.images.iter().find(of_version).ok_or_else(|| no_image(case))?;
        draft.note(format!("bake: the artifact of {} is gone, its image {} is there", target.version, image.name));
        return Ok(Some(image));
    }
    if let Some(image) = facts.images.iter().find(of_version).filter(|_| case.pinned) {
        // Going back must not depend on today's provisioning: the image is what was tested then.
        draft.note(format!("bake: {} is there", image.name));
        return Ok(Some(image));
    }
    if target.builds {
        if let Some(why) = why::build(case) {
            draft.because(Stage::Build, why);
        }
        draft.because(Stage::Publish, "the artifact is new");
        build(case, draft)?;
    } else {
        draft.note(format!("build: {} is published with the same inputs or asked for by name", target.version));
    }
    let address = facts.own_address.ok_or_else(no_address)?;
    check_base(facts)?;
    let bake = &pipeline.bake;
    let lease = bake.timeout.as_secs() + LEASE_MARGIN_SECONDS;
    let stage = Stage::Bake;
    draft.because(stage, why::bake(case));
    draft.add(
        stage,
        bake::KEY,
        Sign::Add,
        "make an ephemeral key pair",
        Some("delete it"),
        Action::ImportKey(bake::ImportKey {}),
    );
    draft.add(
        stage,
        "bake/open-ssh",
        Sign::Add,
        format!(
            "open port {} of {} for {address}/32, for {} at most",
            bake.ssh_port,
            bake.security_group,
            Span::seconds(lease)
        ),
        Some("close it"),
        Action::OpenIngress(ingress::OpenIngress {
            security_group: facts.network.builder_security_group.clone(),
            address,
            ports: vec![bake.ssh_port],
            lease_seconds: lease,
        }),
    );
    draft.add(
        stage,
        bake::BUILDER,
        Sign::Add,
        format!("launch a builder, {} from {}", bake.instance_type, facts.base.name),
        Some("terminate it"),
        Action::LaunchBuilder(bake::LaunchBuilder {
            image: facts.base.ami.clone(),
            instance_type: bake.instance_type.clone(),
            subnet: facts.network.builder_subnet.clone(),
            security_group: facts.network.builder_security_group.clone(),
            lease_seconds: lease,
            timeout: bake.timeout,
        }),
    );
    draft.add(
        stage,
        bake::PROVISION,
        Sign::Change,
        format!("provision it with {}, check it, scrub it", target.version),
        None::<&str>,
        Action::Provision(bake::ProvisionBuilder {
            bake: bake.clone(),
            base: facts.base.clone(),
            own_address: address,
        }),
    );
    draft.add(
        stage,
        bake::IMAGE,
        Sign::Add,
        format!(
            "create the image {} and its bill of materials",
            bake::image_name(&pipeline.app, target.version, &scope.run)
        ),
        Some("deregister it, delete its snapshots and the bill"),
        Action::CreateImage(bake::CreateImage {
            name: bake::image_name(&pipeline.app, target.version, &scope.run),
            base: facts.base.clone(),
            timeout: bake.timeout,
        }),
    );
    draft.add(
        stage,
        "bake/end-builder",
        Sign::Remove,
        "terminate the builder",
        None::<&str>,
        Action::EndBuilder(bake::EndBuilder {}),
    );
    draft.add(
        stage,
        "bake/close-ssh",
        Sign::Remove,
        format!("close port {} of {}", bake.ssh_port, bake.security_group),
        None::<&str>,
        Action::CloseIngress(ingress::CloseIngress {
            security_group: facts.network.builder_security_group.clone(),
            opened_by: StepId::from("bake/open-ssh"),
        }),
    );
    if !case.needs_ssh() {
        draft.add(
            stage,
            "bake/delete-key",
            Sign::Remove,
            "delete the ephemeral key pair",
            None::<&str>,
            Action::DeleteKey(bake::DeleteKey {}),
        );
    }
    Ok(None)
}

fn asks_for_signatures(case: &Case<'_>) -> bool {
    !case.pipeline().publish.signed_by.is_empty()
}

/// Whether an image is made of what was signed. Its fingerprint and its tag are AWS's word, which nobody has who can only
/// write to the bucket.
fn is_vouched_for(image: &Image, facts: &Facts) -> bool {
    let Some(vouched) = &facts.signing.vouched else { return false };
    image.artifact.as_ref() == Some(vouched) || Some(&image.fingerprint) == facts.fingerprint.as_ref()
}

/// Neither artifact nor image.
fn no_image(case: &Case<'_>) -> PlanError {
    let Case { facts, target, .. } = case;
    match facts.images.iter().find(|image| image.version == target.version && image.available) {
        Some(image) => PlanError::new(
            format!(
                "the artifact of {} is gone, and nothing that is signed says what its image {} was made of",
                target.version, image.name
            ),
            "deploy a version whose artifact is there (`alcedo releases`), or build its commit again",
        ),
        None => unknown_version(target.version, facts),
    }
}

/// An artifact goes only onto the base that it was built in. A vendor's image has no digest to compare: its builder is
/// looked at instead.
fn check_base(facts: &Facts) -> Result<(), PlanError> {
    let built_in = match (&facts.release, &facts.source) {
        (Some(manifest), _) => &manifest.base,
        (None, Some(source)) => &source.base,
        (None, None) => return Ok(()),
    };
    let Some(server) = &facts.base.recipe_digest else { return Ok(()) };
    base_match::same_recipe(built_in, &facts.base.name, server).map_err(|error| {
        let mut hints: Vec<String> = error.hint().map(str::to_owned).into_iter().collect();
        if facts.release.is_some() {
            hints.push("deploy without --version to build again on the present base".to_owned());
        }
        PlanError { what: error.to_string(), hints }
    })
}

fn build(case: &Case<'_>, draft: &mut Draft) -> Result<(), PlanError> {
    let Case { scope, facts, .. } = case;
    let pipeline = case.pipeline();
    let source = facts
        .source
        .as_ref()
        .ok_or_else(|| PlanError::new("there is no source to build from", "run in the project's folder"))?;
    let where_ = match &source.base {
        BuildBase::Recipe { name, .. } => format!("recipe {name}"),
        BuildBase::Image { reference, .. } => reference.clone(),
    };
    let version = scope.new_version;
    if let Some(passed_over) = &facts.signing.passed_over {
        draft.note(passed_over);
    }
    let signed_by = match (pipeline.publish.signs(), &facts.signing.key) {
        (false, _) => None,
        (true, Some(key)) => Some(key.clone()),
        (true, None) => {
            return Err(PlanError::new(
                format!("a new version has to be signed, and {VARIABLE} is not set"),
                "set it to the private key (the path of its PEM file, or its text), or take a version that is published with \
                 --version",
            ));
        }
    };
    draft.add(
        Stage::Build,
        "build/version",
        Sign::Add,
        format!("take the version {version}"),
        Some("give it back"),
        Action::Reserve(publish::Reserve {}),
    );
    draft.add(
        Stage::Build,
        build::RUN,
        Sign::Add,
        format!(
            "run {} commands in {where_} and pack {}",
            pipeline.build.commands.len(),
            pipeline.build.pack.join(", ")
        ),
        None::<&str>,
        Action::Build(build::RunBuild { build: pipeline.build.clone(), inputs: source.inputs.clone() }),
    );
    let signature = signed_by.as_ref().map(|key| format!(", signed by the key {}", key.short())).unwrap_or_default();
    let to = format!("s3://{}/{}{version}/", pipeline.publish.bucket, scope.root);
    draft.add(
        Stage::Publish,
        publish::ARTIFACT,
        Sign::Add,
        format!("upload {to}artifact.tar.zst"),
        Some("remove it"),
        Action::UploadArtifact(publish::UploadArtifact {}),
    );
    draft.add(
        Stage::Publish,
        "publish/manifest",
        Sign::Add,
        format!("write {to}manifest.json{signature}"),
        Some("remove it"),
        Action::WriteManifest(publish::WriteManifest {
            commands: pipeline.build.commands.clone(),
            inputs: source.inputs.clone(),
            dirty: source.dirty,
            signed_by,
        }),
    );
    draft.add(
        Stage::Publish,
        "publish/pointer",
        Sign::Change,
        format!("move VERSION to {version}"),
        Some("move it back"),
        Action::MovePointer(publish::MovePointer { inputs: source.inputs.clone() }),
    );
    Ok(())
}
