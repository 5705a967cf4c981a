//! The bill of materials of a server image: which packages of the distribution are in it, as a CycloneDX 1.5 document beside
//! the artifact.
//!
//! **Guarantees.** One image has one document, and the same facts give the same bytes; it is never written over. It stays as
//! long as the version does, also where the image has gone. **Caveats.** It lists what the builder's package manager knows:
//! what a build has packed into the artifact, or a provisioning step has put there without a package, is not in it, and the
//! document says that it is incomplete.

use alcedo_images::packages::{Installed, Manager, Package};
use alcedo_pipeline::{context::StepContext, error::StepError};
use cyclonedx_bom::{
    models::{
        bom::BomReference,
        component::Classification,
        composition::{AggregateType, Composition, Compositions},
        dependency::{Dependencies, Dependency},
        hash::{Hash, HashAlgorithm, HashValue, Hashes},
        property::{Properties, Property},
        tool::{Tool, Tools},
    },
    prelude::{Bom, Component, Components, DateTime, Metadata, Purl, SpecVersion, UrnUuid, Validate},
};
use purl::GenericPurlBuilder;
use sha2::{Digest, Sha256};

use super::Found;
use crate::{
    cloud_error::CloudError,
    publish,
    releases::{self, Manifest},
    site::Site,
};

/// Writes the image's document, and answers where it is.
pub(super) async fn write(
    site: &Site,
    context: &StepContext,
    release: &Manifest,
    image: &Found,
    installed: &Installed,
) -> Result<String, StepError> {
    let document = document(release, image, installed)
        .map_err(|error| StepError::failed("the image's packages make no bill of materials").because(error))?;
    let key = releases::sbom_key(&site.root, release.version, &image.ami);
    publish::create_same(site, context, &key, document).await?;
    let url = site.url(&key);
    context.output_line(format!("{} packages of the image are listed in {url}", installed.packages.len()));
    Ok(url)
}

/// Removes the document of an image that is not to be.
pub(super) async fn remove(site: &Site, context: &StepContext) -> Result<(), StepError> {
    for object in context.owned().iter().filter(|resource| resource.kind == "object") {
        let call = site.clients.s3.delete_object().bucket(site.bucket()).key(&object.id);
        call.send().await.map_err(|error| CloudError::of(format!("remove {}", object.id), error))?;
    }
    Ok(())
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
enum SbomError {
    #[error("the package {package} cannot be named as a package URL")]
    Purl {
        package: String,
        #[source]
        source: purl::ParseError,
    },
    #[error("CycloneDX takes no such document: {0}")]
    Invalid(String),
    #[error("the document cannot be written")]
    Write(#[from] cyclonedx_bom::errors::JsonWriteError),
}

/// The document's bytes.
fn document(release: &Manifest, image: &Found, installed: &Installed) -> Result<Vec<u8>, SbomError> {
    let mut bom = Bom { spec_version: SpecVersion::V1_5, serial_number: None, ..describe(release, image, installed)? };
    let mut content = Vec::new();
    bom.clone().output_as_json_v1_5(&mut content)?;
    bom.serial_number = Some(serial_number(&content));
    let validation = bom.validate();
    if !validation.passed() {
        return Err(SbomError::Invalid(format!("{validation:?}")));
    }
    let mut document = Vec::new();
    bom.output_as_json_v1_5(&mut document)?;
    Ok(document)
}

fn describe(release: &Manifest, image: &Found, installed: &Installed) -> Result<Bom, SbomError> {
    let platform = &installed.platform;
    let app = Component {
        hashes: Some(Hashes(vec![Hash { alg: HashAlgorithm::SHA_256, content: HashValue(release.sha256.clone()) }])),
        ..component(Classification::Application, &release.app, &release.version.to_string())
    };
    let system = component(Classification::OperatingSystem, &platform.os, &platform.os_version);
    let (app_ref, system_ref) = (reference(&app), reference(&system));
    let mut components = vec![system];
    for package in &installed.packages {
        components.push(of_package(package, installed)?);
    }
    let property = |name: &str, value: &str| Property::new(format!("alcedo:{name}"), value);
    let mut properties = vec![property("image", &image.ami), property("architecture", &platform.architecture)];
    properties.extend(release.commit.as_deref().map(|commit| property("commit", commit)));
    let metadata = Metadata {
        // The image's own moment: the same whenever it is asked for.
        timestamp: image.made_at.and_then(|at| DateTime::try_from(at.to_string()).ok()),
        tools: Some(Tools::List(vec![Tool::new("Alcedo", "alcedo", env!("CARGO_PKG_VERSION"))])),
        component: Some(app),
        properties: Some(Properties(properties)),
        ..Metadata::default()
    };
    let composition = Composition {
        bom_ref: None,
        aggregate: if installed.manager.is_some() { AggregateType::Incomplete } else { AggregateType::Unknown },
        assemblies: Some(vec![BomReference::new(&app_ref)]),
        dependencies: None,
        vulnerabilities: None,
        signature: None,
    };
    Ok(Bom {
        metadata: Some(metadata),
        components: Some(Components(components)),
        dependencies: Some(Dependencies(vec![Dependency { dependency_ref: app_ref, dependencies: vec![system_ref] }])),
        compositions: Some(Compositions(vec![composition])),
        ..Bom::default()
    })
}

/// A component that others of the document refer to by its name and version.
fn component(kind: Classification, name: &str, version: &str) -> Component {
    Component::new(kind, name, version, Some(format!("{name}@{version}")))
}

fn reference(component: &Component) -> String {
    component.bom_ref.clone().unwrap_or_default()
}

fn of_package(package: &Package, installed: &Installed) -> Result<Component, SbomError> {
    let purl = purl(package, installed)
        .map_err(|source| SbomError::Purl { package: package.name.clone(), source })?
        .to_string()
        // The specification wants it encoded, and some readers of qualifiers take it for a space.
        .replace('+', "%2B");
    Ok(Component {
        purl: purl.parse::<Purl>().ok(),
        ..Component::new(Classification::Library, &package.name, &package.version, Some(purl))
    })
}

/// Package URL specification, *PURL types*: `deb` and `rpm`. `distro` and `upstream` are what scanners look advisories up by:
/// these are of a release, and of source packages.
fn purl(package: &Package, installed: &Installed) -> Result<purl::GenericPurl<String>, purl::ParseError> {
    let platform = &installed.platform;
    let kind = match installed.manager {
        Some(Manager::Rpm) => "rpm",
        _ => "deb",
    };
    let vendor = if platform.os == "rhel" { "redhat" } else { platform.os.as_str() };
    let distro = match platform.os_version.as_str() {
        "" => platform.os.clone(),
        version => format!("{}-{version}", platform.os),
    };
    let mut purl = GenericPurlBuilder::new(kind.to_owned(), package.name.as_str())
        .with_namespace(vendor)
        .with_version(package.version.as_str())
        .with_qualifier("arch", package.architecture.as_str())?
        .with_qualifier("distro", distro.as_str())?;
    if package.epoch > 0 {
        purl = purl.with_qualifier("epoch", package.epoch.to_string().as_str())?;
    }
    if let Some(source) = &package.source {
        purl = purl.with_qualifier("upstream", source.as_str())?;
    }
    purl.build()
}

/// A UUID of version 8 (RFC 9562, 5.8: one's own way), from the document's content: another document has another number.
fn serial_number(content: &[u8]) -> UrnUuid {
    let digest = Sha256::digest(content);
    let mut id: [u8; 16] = digest[..16].try_into().expect("SHA-256 has 32 bytes");
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    let hex = hex::encode(id);
    let urn = format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    UrnUuid::new(urn).expect("it is written as a UUID")
}
