//! Bills of materials: one an image, beside the artifact, by the published schema, and gone when its version or its image is
//! not to be.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use alcedo_local_region::faults::{Calls, Effect, Fault, When};
use alcedo_pipeline::{
    error::ErrorKind,
    event::Outcome,
    plan::{Plan, Stage},
    version::Version,
};
use alcedo_stages::{facts, overview, releases, retire, site::Site};
use serde_json::{Value, json};

use crate::{
    life::{assert_done, deploy},
    support::{account::Account, inventory, journey, region::LocalRegion, simulation::Simulation, staged::Staged},
};

const FIRST: &str = "2026.1101.100000";

/// The part of a deploy of a published version that makes its image.
async fn plan(site: &Site, version: Version) -> Plan {
    let (plan, _) = journey::plan(site, deploy(version)).await;
    journey::only(plan, &[Stage::Bake])
}

/// Bakes a published version with these packages, and answers its image's id.
async fn bake(site: &Site, version: Version, packages: &[(&str, &str)]) -> String {
    let plan = plan(site, version).await;
    let ending = journey::walk(site, plan.clone(), &Staged::new(site).with_packages(packages)).await;
    assert_done(&plan, &ending);
    let images = facts::app_images(site).await.unwrap();
    let image = images.iter().find(|image| image.version == version && image.name.ends_with(plan.run.as_str()));
    image.expect("it has made an image").ami.clone()
}

async fn document(site: &Site, version: Version, ami: &str) -> Option<Vec<u8>> {
    let object = site.store.read(&releases::sbom_key(&site.root, version, ami)).await.unwrap();
    object.map(|object| object.bytes)
}

#[tokio::test]
async fn an_image_has_a_document_that_names_its_packages() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let manifest = account.publish(&site, FIRST.parse().unwrap()).await;
    let packages = [("zlib1g", "1:1.2.13.dfsg-1"), ("libstdc++6", "12.2.0-14+deb12u1")];
    let ami = bake(&site, manifest.version, &packages).await;

    let bytes = document(&site, manifest.version, &ami).await.expect("it is beside the artifact");
    let bom: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((&bom["bomFormat"], &bom["specVersion"]), (&json!("CycloneDX"), &json!("1.5")));
    let app = &bom["metadata"]["component"];
    assert_eq!((&app["name"], &app["version"]), (&json!("hello"), &json!(FIRST)));
    assert_eq!(app["hashes"][0], json!({ "alg": "SHA-256", "content": manifest.sha256 }));
    let properties = bom["metadata"]["properties"].as_array().unwrap();
    assert!(properties.contains(&json!({ "name": "alcedo:image", "value": ami })), "{properties:?}");
    let text = |component: &Value, key: &str| component[key].as_str().unwrap_or_default().to_owned();
    let components = bom["components"].as_array().unwrap();
    let found: Vec<[String; 3]> =
        components.iter().map(|it| ["name", "version", "purl"].map(|key| text(it, key))).collect();
    let of = "arch=amd64&distro=debian-12";
    assert_eq!(
        found,
        [
            ["debian".into(), "12".into(), String::new()],
            [
                "libstdc++6".into(),
                "12.2.0-14+deb12u1".into(),
                format!("pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?{of}")
            ],
            ["zlib1g".into(), "1:1.2.13.dfsg-1".into(), format!("pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?{of}")],
        ]
    );
    let url = format!("s3://{}/{}", site.bucket(), releases::sbom_key(&site.root, manifest.version, &ami));
    let told = overview::releases(&site, 5).await.unwrap();
    assert_eq!(told[0].sboms, [url], "`alcedo releases` tells where");
    check_against_the_schema(&bytes, &bom);
}

/// CycloneDX's own schema, as its Python library carries it.
fn check_against_the_schema(bytes: &[u8], bom: &Value) {
    let python =
        std::env::var_os("ALCEDO_TEST_PYTHON").expect("`cargo xtask test` names a Python with cyclonedx-python-lib");
    let place = "import cyclonedx.schema, os; print(os.path.dirname(cyclonedx.schema.__file__))";
    let place = Command::new(&python).args(["-c", place]).output().unwrap();
    assert!(place.status.success(), "{}", String::from_utf8_lossy(&place.stderr));
    let folder = PathBuf::from(String::from_utf8(place.stdout).unwrap().trim());
    let schema = folder.join("_res/bom-1.5.SNAPSHOT.schema.json");
    let check = |document: &[u8]| {
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        std::fs::write(file.path(), document).unwrap();
        let checker = Path::new(&python).with_file_name("check-jsonschema");
        Command::new(checker).arg("--schemafile").arg(&schema).arg(file.path()).output().unwrap()
    };
    let output = check(bytes);
    assert!(output.status.success(), "{output:?}");
    // The check of the check.
    let mut wrong = bom.clone();
    wrong["components"][1]["type"] = "a thing".into();
    let output = check(&serde_json::to_vec(&wrong).unwrap());
    assert!(String::from_utf8_lossy(&output.stdout).contains("'a thing' is not one of"), "{output:?}");
}

/// The distribution has moved on between two bakes of one version: each image has its own document, and each document its
/// own number.
#[tokio::test]
async fn two_bakes_of_one_version_have_two_documents() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let version = account.publish(&site, FIRST.parse().unwrap()).await.version;
    let old = bake(&site, version, &[("openssl", "3.0.14")]).await;
    let before = document(&site, version, &old).await.unwrap();
    let images = facts::app_images(&site).await.unwrap();
    retire::delete_image(&site.clients, &old, &images[0].snapshots).await.unwrap();
    let new = bake(&site, version, &[("openssl", "3.0.15")]).await;

    let after = document(&site, version, &new).await.unwrap();
    assert_eq!(document(&site, version, &old).await, Some(before.clone()), "what was there is as it was");
    let bom = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let [before, after] = [bom(&before), bom(&after)];
    assert_eq!(
        (&before["components"][1]["version"], &after["components"][1]["version"]),
        (&json!("3.0.14"), &json!("3.0.15"))
    );
    assert_ne!(before["serialNumber"], after["serialNumber"]);
    assert_eq!(site.sboms(version).await.unwrap().len(), 2);

    retire::remove_version(&site, version).await.unwrap();
    assert_eq!(site.sboms(version).await.unwrap(), [""; 0], "they go with the version");
}

/// Done twice it writes the same bytes; undone, it is gone, and the version is as it was.
#[tokio::test]
async fn a_document_goes_with_the_image_that_is_not_to_be() {
    let region = LocalRegion::without_lags().await;
    let account = Account::open(region.endpoint.clone()).await;
    let site = account.site().await;
    let version = account.publish(&site, FIRST.parse().unwrap()).await.version;
    let before = inventory::of(&account).await;
    let steps = Staged::new(&site).provisioned().repeating(|| Box::pin(async { String::new() }));
    let steps = steps.failing_at("bake/end-builder");
    let ending = journey::walk(&site, plan(&site, version).await, &steps).await;
    assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
    assert_eq!(ending.failure.unwrap().0.as_str(), "bake/end-builder", "the image's step can be done twice");
    inventory::assert_same(&inventory::of(&account).await, &before);
}

/// Somebody else's document comes while ours is on its way: it is not written over, and the image is not used.
#[tokio::test(start_paused = true)]
async fn a_document_is_never_written_over() {
    let simulation = Simulation::start(0, LocalRegion::no_lags()).await;
    let account = Account::within(simulation.clients.clone(), 0).await;
    let site = account.site().await;
    let version = account.publish(&site, FIRST.parse().unwrap()).await.version;
    let plan = plan(&site, version).await;
    let faults = &simulation.region.region.faults;
    let about = Some(format!("{}{version}/sbom-", site.root));
    let on = Calls { operation: Some("PutObject".into()), about, times: Some(1), ..Calls::default() };
    let held = faults.add(Fault { on, when: When::Before, effect: Effect::Hold });
    let steps = Staged::new(&site).provisioned();
    let others = async {
        faults.struck(held, 1).await;
        let images = facts::app_images(&site).await.unwrap();
        let key = releases::sbom_key(&site.root, version, &images[0].ami);
        site.store.create(&key, b"theirs".to_vec()).await.unwrap();
        faults.remove(held);
    };
    let (ending, ()) = tokio::join!(journey::walk(&site, plan.clone(), &steps), others);

    assert_eq!(ending.outcome, Outcome::Unwound, "{:?}", ending.left);
    let (step, error) = ending.failure.unwrap();
    assert_eq!((step.as_str(), error.kind), ("bake/image", ErrorKind::Changed), "{error:?}");
    assert!(facts::app_images(&site).await.unwrap().is_empty());
}
