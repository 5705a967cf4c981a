//! The commands that only look: each tells what is there, as text and as JSON, and changes nothing.

use serde_json::Value;

use crate::{
    run::{assert_says, text},
    world::World,
};

/// Before anything was ever deployed.
pub fn nothing_deployed_yet(world: &World) {
    assert_says(&world.run(&["validate"]).expect(0).stdout, &["alcedo.yaml is fine", "hello", "local", "production"]);
    let file = world.json(&["validate"]).expect(0);
    assert_eq!(
        (text(&file.json()["app"]), text(&file.json()["default_environment"])),
        ("hello".into(), "local".into())
    );

    // The first command makes in the local region what the file names; after that nothing changes any more.
    assert_says(&world.run(&["releases"]).expect(0).stdout, &["nothing is published yet"]);
    let before = world.inventory();
    let plan = world.run(&["plan"]).expect(0).stdout;
    let stages = ["build", "publish", "bake", "launch", "smoke", "flip"];
    assert_says(&plan, &["deploy hello", "nothing in service"]);
    assert_says(&plan, &stages);
    let plan = world.json(&["plan"]).expect(0);
    let planned = plan.json()["steps"].as_array().expect("steps");
    let mut of_plan: Vec<String> = planned.iter().map(|step| text(&step["stage"])).collect();
    of_plan.dedup();
    assert_eq!(of_plan, stages);
    assert_says(&world.run(&["status"]).expect(0).stdout, &["hello in local", "nothing in service", "503"]);
    assert_says(&world.run(&["runs"]).expect(0).stdout, &["no run yet"]);
    assert_says(&world.json(&["rollback"]).expect(2).failure(), &["which version was in service before"]);
    before.assert_same(&world.inventory());
    world.tell("looked at a region where nothing was deployed");
}

/// With two versions and more; `in_service` is one of them.
pub fn after_deploys(world: &World, versions: &[&str], in_service: &str) {
    let before = world.inventory();
    plans(world, versions, in_service);
    status(world, in_service);
    releases(world, versions, in_service);
    runs(world);
    policy(world);
    before.assert_same(&world.inventory());
    world.tell("looked at everything");
}

/// What is printed is what the local region enforces; under it everything that only looks goes on working, and what the policy
/// does not have is refused.
fn policy(world: &World) {
    let policy = world.run(&["iam-policy"]).expect(0).stdout;
    world.restrict(Some(&policy));
    assert_says(&world.run(&["status"]).expect(0).stdout, &["in service"]);
    assert_says(&world.run(&["sweep", "--dry-run"]).expect(0).stdout, &["nothing is left over"]);
    world.restrict(Some(&policy.replace("elasticloadbalancing:DescribeRules", "elasticloadbalancing:DescribeNothing")));
    let refused = world.run(&["status"]).expect(1).stderr;
    assert_says(&refused, &["elasticloadbalancing:DescribeRules", "the credentials lack a permission"]);
    world.restrict(None);
    let trust = ["iam-policy", "--trust", "github", "--repository", "octo-org/octo-repo", "--branch", "main"];
    assert_says(&world.run(&trust).expect(0).stdout, &["repo:octo-org/octo-repo:ref:refs/heads/main"]);
    assert_says(&world.run(&trust[..5]).expect(2).stderr, &["add --branch"]);
}

fn plans(world: &World, versions: &[&str], in_service: &str) {
    let plan = world.run(&["plan", "--version", in_service]).expect(0).stdout;
    assert_says(&plan, &["= ", &format!("{in_service} is already in service")]);
    let other = versions.iter().find(|version| **version != in_service).expect("another version");
    let plan = world.json(&["plan", "--rollback", "--version", other]).expect(0);
    assert_eq!((text(&plan.json()["purpose"]), text(&plan.json()["version"])), ("rollback".into(), (*other).into()));
    assert_says(&world.json(&["plan", "--version", "2001.101.0"]).expect(2).failure(), &["2001.101.0", in_service]);
}

fn status(world: &World, in_service: &str) {
    let told = world.run(&["status"]).expect(0).stdout;
    assert_says(&told, &["hello in local", &format!(":{}", world.port), "VERSION", "in service", "held", "2/2"]);
    let json = world.json(&["status"]).expect(0);
    let fleets = json.json()["fleets"].as_array().expect("fleets").clone();
    let serving: Vec<&Value> = fleets.iter().filter(|fleet| fleet["role"] == "in-service").collect();
    assert_eq!(serving.len(), 1, "{fleets:?}");
    assert_eq!((text(&serving[0]["version"]), &json.json()["lock"]), (in_service.to_owned(), &Value::Null));
    // Nobody here has credentials for the other environment: its line says so, and so does the exit code.
    let all = world.run(&["status", "--all"]).expect(1);
    let line =
        |name: &str| all.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    assert_says(line("local"), &[in_service, "2/2"]);
    assert_says(line("production"), &["?"]);
    assert_says(&all.stderr, &["1 environment could not be looked at"]);
}

fn releases(world: &World, versions: &[&str], in_service: &str) {
    let told = world.run(&["releases"]).expect(0).stdout;
    assert_says(&told, versions);
    let line = told.lines().find(|line| line.contains(in_service)).expect("its line");
    assert_says(line, &["ami-", "in service"]);
    let json = world.json(&["releases"]).expect(0);
    let listed = json.json()["releases"].as_array().expect("releases").clone();
    let mut newest_first = versions.to_vec();
    newest_first.sort_unstable();
    newest_first.reverse();
    assert_eq!(listed.iter().map(|one| text(&one["version"])).collect::<Vec<_>>(), newest_first);
    for release in &listed {
        let manifest = &release["manifest"];
        assert_eq!((text(&manifest["sha256"]).len(), text(&manifest["commit"]).len()), (64, 40), "{manifest}");
        assert_eq!(manifest["dirty"], false, "{manifest}");
    }
    let one = world.json(&["releases", "--limit", "1"]).expect(0);
    assert_eq!(one.json()["releases"].as_array().map(Vec::len), Some(1));
}

fn runs(world: &World) {
    let told = world.run(&["runs"]).expect(0).stdout;
    assert_says(&told, &["RUN", "deploy", "rollback", "done"]);
    let json = world.json(&["runs"]).expect(0);
    let listed = json.json()["runs"].as_array().expect("runs").clone();
    let newest = text(&listed[0]["run"]);
    assert!(listed.iter().all(|run| text(&run["run"]) <= newest), "newest first: {listed:?}");

    let shown = world.run(&["runs", "show", &newest]).expect(0).stdout;
    assert_says(&shown, &["flip", "launch", "hello", &text(&listed[0]["version"])]);
    let shown = world.json(&["runs", "show", &newest]).expect(0);
    assert_eq!(shown.events.first().map(|event| text(&event["event"])).as_deref(), Some("run-started"));
    assert_eq!(shown.report()["run"], listed[0]["run"]);
    assert_says(&world.run(&["runs", "show", "20010101-000000-0000"]).expect(2).stderr, &["20010101-000000-0000"]);

    // What the journal does not keep: the output of the build.
    let first = text(&listed.last().expect("a run")["run"]);
    assert_says(&world.run(&["logs", &first]).expect(0).stdout, &["| go test ./...", "waiting: ", "done ("]);
    assert_says(&world.run(&["logs"]).expect(0).stdout, &[&format!("run {newest}")]);
    assert_eq!(world.json(&["logs", &first]).expect(0).json()["logs"].as_array().map(Vec::len), Some(1));
    assert_says(&world.run(&["logs", "20010101-000000-0000"]).expect(2).stderr, &["20010101-000000-0000"]);
}
