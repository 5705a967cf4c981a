//! What is missing, wrong or taken before a run begins: one clear message with what to do, the right exit code, and
//! nothing changed.

use std::net::TcpListener;

use crate::{
    run::{Ended, Running, assert_says},
    world::World,
};

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let world = World::new("bad luck");
    bad_file(&world);
    unknown_environment(&world);
    no_engine(&world);
    taken_port(&world);

    let first = world.deploy();
    let before = world.inventory();
    world.tell("deployed");
    missing_on_the_endpoint(&world);
    wrong_credentials(&world);
    no_place_for_files(&world);
    before.assert_same(&world.inventory());
    lock_held(&world, &first);
    world.assert_answers(&first);
}

fn bad_file(world: &World) {
    world.app.replace("alcedo.yaml", "smoke_tests:", "smoke_test:");
    let run = world.run(&["deploy"]).expect(2);
    assert_says(&run.stderr, &["alcedo.yaml:", "smoke_test", "did you mean `smoke_tests`"]);
    world.app.replace("alcedo.yaml", "smoke_test:", "smoke_tests:");
    world.tell("a bad file");
}

fn unknown_environment(world: &World) {
    let run = world.run(&["deploy", "--env", "prodution"]).expect(2);
    assert_says(&run.stderr, &["prodution", "production"]);
    world.tell("an unknown environment");
}

fn no_engine(world: &World) {
    let mut command = world.command(&["deploy"]);
    command.env("DOCKER_HOST", "unix:///nonexistent/engine.sock");
    let run = Running::start(world.runtime.handle(), command).end().expect(1);
    assert_says(&run.stderr, &["/nonexistent/engine.sock", "help:"]);
    world.tell("no engine");
}

fn taken_port(world: &World) {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let (here, there) = (format!("port: {}", world.port), format!("port: {port}"));
    world.app.replace("alcedo.yaml", &here, &there);
    let run = world.run(&["deploy"]).expect(1);
    assert_says(&run.stderr, &[&port.to_string(), "taken"]);
    world.app.replace("alcedo.yaml", &there, &here);
    world.tell("a taken port");
}

/// The region by its URL, as any other endpoint: then nothing that the file names is made for it.
fn at_the_endpoint(world: &World, change: (&str, &str)) -> Ended {
    let url = world.variables().into_iter().find(|(name, _)| name == "AWS_ENDPOINT_URL").expect("it is given").1;
    let file = world.app.read("alcedo.yaml");
    world.app.replace("alcedo.yaml", "aws: { endpoint: local }", &format!("aws: {{ endpoint: \"{url}\" }}"));
    world.app.replace("alcedo.yaml", change.0, change.1);
    let mut command = world.command(&["deploy"]);
    command.envs(world.variables());
    let run = Running::start(world.runtime.handle(), command).end();
    world.app.write("alcedo.yaml", &file);
    run
}

fn missing_on_the_endpoint(world: &World) {
    let missing: [(&str, &str, &[&str]); 6] = [
        ("bucket: alcedo-local", "bucket: no-such-bucket", &["bucket", "help:"]),
        ("load_balancer: hello,", "load_balancer: no-such-balancer,", &["no load balancer no-such-balancer", "help:"]),
        (
            &format!("hello, port: {}", world.port),
            "hello, port: 9",
            &["no listener on port 9", &world.port.to_string()],
        ),
        ("subnets: [a, b]", "subnets: [a, nowhere]", &["no subnet", "nowhere", "help:"]),
        ("security_groups: [hello]", "security_groups: [nobody]", &["no security group", "nobody", "help:"]),
        (
            "base: { recipe: debian-bookworm }",
            "base: { owner: self, name: no-such-image-* }",
            &["no base image", "no-such-image-*", "help:"],
        ),
    ];
    for (old, new, said) in missing {
        let run = at_the_endpoint(world, (old, new)).expect(1);
        assert_says(&run.stderr, said);
        world.tell(new);
    }
}

fn wrong_credentials(world: &World) {
    let url = world.variables().into_iter().find(|(name, _)| name == "AWS_ENDPOINT_URL").expect("it is given").1;
    let file = world.app.read("alcedo.yaml");
    world.app.replace("alcedo.yaml", "aws: { endpoint: local }", &format!("aws: {{ endpoint: \"{url}\" }}"));
    let mut command = world.command(&["deploy"]);
    command.envs(world.variables()).env("AWS_SECRET_ACCESS_KEY", "not-the-key");
    let run = Running::start(world.runtime.handle(), command).end().expect(1);
    assert_says(&run.stderr, &["SignatureDoesNotMatch", "credentials", "help:"]);
    let mut command = world.command(&["deploy"]);
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_REGION", "us-east-1");
    let run = Running::start(world.runtime.handle(), command).end().expect(1);
    assert_says(&run.stderr, &["credentials", "help:"]);
    world.app.write("alcedo.yaml", &file);
    world.tell("wrong credentials, and none");
}

/// What was reserved before that was noticed is given back: the caller compares the region before and after.
fn no_place_for_files(world: &World) {
    world.app.greet("Hello, without a place for files.");
    let mut command = world.command(&["deploy"]);
    command.env("TMPDIR", "/nonexistent");
    let run = Running::start(world.runtime.handle(), command).end().expect(1);
    assert_says(&run.stderr, &["/nonexistent", "help: free some space, or set TMPDIR"]);
    world.tell("no place for temporary files");
}

/// Two runs at once: the second says who is at work, and the first is not disturbed.
fn lock_held(world: &World, in_service: &str) {
    world.app.greet("Hello, one at a time.");
    let mut first = world.begin(&["deploy"]);
    first.until_begins("build/run");
    let second = world.json(&["deploy"]).expect(4);
    assert_says(&second.failure(), &["e2e@", "deploy"]);
    let rollback = world.run(&["rollback", "--to", in_service]).expect(4);
    assert_says(&rollback.stderr, &["e2e@"]);
    first.signal(nix::sys::signal::Signal::SIGINT);
    first.end().expect(130);
    // The lock went with the run that had it.
    world.json(&["deploy", "--version", in_service]).expect(0);
    world.tell("a lock that is held");
}
