//! A newcomer's first minutes: `alcedo init` in an app's folder, and what it writes is deployed as it is.

use std::{fs, path::Path};

use crate::{
    run::{Ended, Running},
    traffic::client,
    world::World,
};

#[test]
fn what_init_writes_is_deployed_to_real_servers() {
    let world = World::new("init");
    let folder = world.path().join("ferry");
    fs::create_dir(&folder).expect("a folder can be made");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/go");
    for file in fs::read_dir(fixture).expect("the app is there").map(|entry| entry.expect("it can be read")) {
        fs::copy(file.path(), folder.join(file.file_name())).expect("it can be copied");
    }
    let alcedo = |arguments: &[&str]| -> Ended {
        let mut command = world.command(arguments);
        command.current_dir(&folder).args(["--output", "json"]);
        Running::start(world.runtime.handle(), command).end()
    };
    alcedo(&["init"]).expect(0);
    // The port may be another test's. The rest is as it was written, with what its comments offer to apps that tell their version.
    let path = folder.join("alcedo.yaml");
    let text = fs::read_to_string(&path).expect("init has written it");
    for (old, new) in [("port: 8600", format!("port: {}", world.port)), ("# version: {", "version: {".to_owned())] {
        assert_eq!(text.matches(old).count(), 1, "{old} in {text}");
        let text = fs::read_to_string(&path).expect("it is still there");
        fs::write(&path, text.replace(old, &new)).expect("it can be written");
    }
    alcedo(&["validate"]).expect(0);
    let found = alcedo(&["doctor"]).expect(0);
    let findings = found.json()["findings"].as_array().expect("a list of findings").clone();
    let not_good: Vec<_> = findings.iter().filter(|it| it["verdict"] != "good").collect();
    assert!(!findings.is_empty() && not_good.is_empty(), "{not_good:#?}");
    alcedo(&["plan"]).expect(0);
    let version = alcedo(&["deploy"]).expect(0).version();
    let pages = world.runtime.block_on(async {
        let mut pages = Vec::new();
        for node in world.nodes() {
            for path in ["/", "/version"] {
                let answer = client(false).get(format!("http://{node}{path}")).send().await.expect("it answers");
                pages.push(answer.text().await.expect("it has a body"));
            }
        }
        pages
    });
    let expected = ["hello from Go\n", version.as_str()];
    assert_eq!(pages, expected.repeat(world.nodes().len()));
    world.tell("what init wrote has traffic");
}
