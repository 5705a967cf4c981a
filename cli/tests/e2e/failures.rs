//! Deploys that fail in every stage by the app's own fault: each says what failed and why, is unwound, and blue goes on.

use crate::{
    run::{Ended, assert_says},
    world::World,
};

#[test]
fn a_deploy_that_fails_is_unwound_and_says_why() {
    let world = World::new("failures");
    world.app.replace("alcedo.yaml", "count: 2", "count: 1");
    world.app.commit("One server");
    let blue = Blue { version: world.deploy(), before: world.inventory(), world: &world };
    world.tell("deployed the first version");
    world.app.greet("Hello, but it fails.");

    build(&blue);
    provisioning(&blue);
    image_check(&blue);
    health(&blue);
    smoke_test(&blue);
}

/// What is in service and must stay so.
struct Blue<'a> {
    world: &'a World,
    version: String,
    before: crate::inventory::Inventory,
}

impl Blue<'_> {
    /// Deploys with one text of one file replaced, and asserts that nothing of it is left.
    #[track_caller]
    fn deploy_with(&self, file: &str, old: &str, new: &str) -> Ended {
        let world = self.world;
        let changed = world.app.with(file, old, new);
        let (run, tally) = world.with_visitors(&["deploy"]);
        drop(changed);
        let run = run.expect(1);
        tally.assert_versions(&[&self.version]);
        assert_eq!(run.report()["outcome"], "unwound", "{}", run.report());
        let after = world.inventory();
        self.before.assert_same(&after);
        after.assert_nothing_open();
        assert_eq!(world.fleets(), [(self.version.clone(), "in-service".into(), 1, 1)]);
        run
    }
}

fn build(blue: &Blue<'_>) {
    let (ok, bad) = ("go vet ./...", "echo what was last said; exit 7");
    let run = blue.deploy_with("alcedo.yaml", ok, bad);
    assert_eq!(run.failed_step(), "build/run");
    assert_says(&run.failure(), &["exit code 7", "echo what was last said; exit 7"]);
    assert_says(&run.failure(), &["its last lines:\n", "\n  what was last said"]);
    assert_says(&run.printed(), &["what was last said"]);

    // The same for a person: on stderr, after everything else.
    let changed = blue.world.app.with("alcedo.yaml", ok, bad);
    let run = blue.world.run(&["deploy"]).expect(1);
    drop(changed);
    assert_says(&run.stderr, &["error: build/run: the build failed", "exit code 7", "what was last said"]);
    assert_says(&run.stdout, &["everything it made is undone", &blue.version, "alcedo runs show"]);
    blue.before.assert_same(&blue.world.inventory());
    blue.world.tell("a build that fails");
}

fn provisioning(blue: &Blue<'_>) {
    let run = blue.deploy_with("deploy/provision.sh", "set -eu", "set -eu\necho no such luck >&2\nexit 9");
    assert_eq!(run.failed_step(), "bake/provision");
    assert_says(&run.failure(), &["the builder could not be provisioned", "deploy/provision.sh", "9", "no such luck"]);
    blue.world.tell("provisioning that fails");
}

fn image_check(blue: &Blue<'_>) {
    let run = blue.deploy_with("alcedo.yaml", "mode: \"0755\"", "mode: \"0640\"");
    assert_eq!(run.failed_step(), "bake/provision");
    assert_says(&run.failure(), &["1 image checks failed; no image was made", "/opt/hello/hello", "0640", "0755"]);
    blue.world.tell("an image check that fails");
}

fn health(blue: &Blue<'_>) {
    let (ok, bad) = ("health_check: { path: /health,", "timeout: 8s\n  health_check: { path: /nowhere,");
    let run = blue.deploy_with("alcedo.yaml", ok, bad);
    assert_eq!(run.failed_step(), "launch/healthy");
    let servers = run.output("launch/instances")["servers"].as_array().expect("servers").clone();
    let id = servers[0]["id"].as_str().expect("an id");
    assert_says(&run.failure(), &["1 of 1 servers were not healthy after 8s", id, "404", "launch.health_check.path"]);
    // The end of its console, told as its own.
    let console = format!("{id} | ");
    assert!(run.printed().lines().filter(|line| line.starts_with(&console)).count() > 1, "{}", run.printed());
    // What the server told is beside the run, although the server is gone.
    let kept = |name: &str| blue.world.evidence(&run.name(), id, name);
    assert_says(&kept("health.json"), &["Target.ResponseCodeMismatch", "404"]);
    assert!(kept("console.txt").contains("SSH HOST KEY FINGERPRINTS"), "{}", kept("console.txt"));
    blue.world.tell("health that never comes");
}

fn smoke_test(blue: &Blue<'_>) {
    let run = blue.deploy_with("alcedo.yaml", "json: { $.status: ok }", "json: { $.status: splendid }");
    assert_eq!(run.failed_step(), "smoke/suite");
    // On the server, and through the preview.
    assert_says(&run.failure(), &["2 smoke tests failed; no traffic was moved", "preview", "splendid", "ok"]);
    let checks = run.events.iter().filter(|event| event["event"] == "checked");
    let (passed, failed): (Vec<_>, Vec<_>) = checks.partition(|event| event["passed"] == true);
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(passed.len() > 5, "the other checks were made as well: {passed:?}");
    let id = run.output("launch/instances")["servers"][0]["id"].as_str().expect("an id");
    let kept = |name: &str| blue.world.evidence(&run.name(), id, name);
    assert_says(&kept("health.json"), &["\"healthy\"", "200"]);
    assert_says(&kept("units.txt"), &["hello.service"]);
    assert_says(&kept("journal.txt"), &["systemd[1]"]);
    blue.world.tell("a smoke test that fails");
}
