//! `alcedo doctor` and every fault of this machine that can be read before a deploy meets it: each is planted alone in a
//! set-up in which nothing is wrong. Faults of the account are planted in the tests of the stages.

// Shared with the tests of the stages, which use more of them.
#[allow(dead_code)]
#[path = "../../stages/tests/control_plane/support/account.rs"]
mod account;
#[path = "../../stages/tests/control_plane/support/here_alone.rs"]
mod here_alone;
#[allow(dead_code)]
#[path = "../../stages/tests/control_plane/support/region.rs"]
mod region;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt, fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
};

use account::Account;
use region::LocalRegion;
use serde_json::{Value, json};

/// Nobody listens there: nothing else on a machine is given port 1.
const NOBODY: &str = "http://127.0.0.1:1/";

/// A region on records alone, an account in it, and a project that names what is there.
struct Setup {
    _region: LocalRegion,
    account: Account,
    folder: tempfile::TempDir,
    planted: u32,
}

/// What to do before, and how the command is to be called.
type Fault<'a> = &'a dyn Fn(&Path, &mut Command);

impl Setup {
    async fn new() -> Self {
        let region = LocalRegion::without_lags().await;
        let account = Account::open(region.endpoint.clone()).await;
        Self { _region: region, account, folder: tempfile::tempdir().unwrap(), planted: 0 }
    }

    /// A project's folder of its own, in which nothing is wrong.
    fn project(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        for (path, text) in [
            ("deploy/provision.sh", "true\n"),
            ("deploy/site.yml", "[]\n"),
            ("deploy/user-data.sh", "#!/bin/sh\n"),
            ("smoke.sh", "#!/bin/sh\n"),
            ("tmp/kept", ""),
        ] {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        executable(&folder.join("smoke.sh"));
        let mut file = self.account.file();
        let endpoint = &self.account.endpoint().url;
        file["aws"] = json!({ "endpoint": endpoint });
        file["bake"]["provision"] =
            json!([{ "script": "deploy/provision.sh" }, { "ansible": { "playbook": "deploy/site.yml" } }]);
        file["launch"]["user_data"] = "deploy/user-data.sh".into();
        file["smoke_tests"] = json!([{ "run": { "program": "./smoke.sh" } }, { "run": { "program": "curl" } }]);
        fs::write(folder.join("alcedo.yaml"), file.to_string()).unwrap();
        let programs = folder.join("bin");
        fs::create_dir(&programs).unwrap();
        // Whether the machine has them is not the question here.
        for name in ["ssh", "ssh-keygen", "mmdebstrap", "ansible-playbook", "curl", "git"] {
            symlink("/bin/true", programs.join(name)).unwrap();
        }
        folder
    }

    /// `alcedo doctor` in that project.
    fn doctor(&self, folder: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alcedo"));
        let at = self.account.endpoint();
        command.current_dir(folder).env_clear();
        if let Some(engine) = std::env::var_os("DOCKER_HOST") {
            command.env("DOCKER_HOST", engine);
        }
        command
            .args(["doctor", "--output", "json"])
            .env("HOME", folder)
            .env("ALCEDO_REGION_DIR", folder.join("region"))
            .env("PATH", folder.join("bin"))
            .env("TMPDIR", folder.join("tmp"))
            .env("AWS_REGION", &at.region)
            .env("AWS_ACCESS_KEY_ID", &at.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &at.secret_key)
            // No machine that may answer elsewhere is asked for credentials or for a region.
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    /// Plants a fault alone. `found` is every finding that turns, the fault's own first; `fix` must be in that one's.
    fn plant(&mut self, what: &str, found: &[(&str, &str)], fix: &[&str], fault: Fault<'_>) {
        let folder = self.project(what);
        let mut command = self.doctor(&folder);
        fault(&folder, &mut command);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let told: Value =
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{what}: {error}: {said} {errors}"));
        let findings = told["findings"].as_array().unwrap_or_else(|| panic!("{what}: {told}"));
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        let wrong: BTreeMap<String, String> = findings
            .iter()
            .filter(|it| it["verdict"] != "good")
            .map(|it| (text(it, "subject"), text(it, "verdict")))
            .collect();
        let expected = found.iter().map(|(subject, verdict)| ((*subject).to_owned(), (*verdict).to_owned())).collect();
        assert_eq!(wrong, expected, "{what}: {told:#}");
        let is_bad = wrong.values().any(|verdict| verdict == "bad");
        assert_eq!((output.status.code(), told["ready"].as_bool()), (Some(i32::from(is_bad)), Some(!is_bad)), "{what}");
        if let Some((subject, _)) = found.first() {
            let own = findings.iter().find(|it| it["subject"] == *subject).unwrap();
            let offered = own["fix"].to_string();
            for text in fix {
                assert!(offered.contains(text), "{what}: nothing of {text} in {own:#}");
            }
            self.planted += 1;
        }
    }

    /// A fault of the file itself, which no command goes on with.
    fn plant_in_file(&mut self, what: &str, named: &str, fault: &dyn Fn(&Path)) {
        let folder = self.project(what);
        fault(&folder);
        let mut command = self.doctor(&folder);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(2), "{what}: {said}");
        assert!(said.contains(named), "{what}: nothing of {named}: {said}");
        self.planted += 1;
    }
}

fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Lets the command run where `TMPDIR` is a file system of this size; nothing outside of it sees that.
fn with_small_tmp(folder: &Path, command: &mut Command, size: &str) {
    let original = std::mem::replace(command, Command::new("/usr/bin/unshare"));
    let script = format!("/bin/mount -t tmpfs -o size={size} none \"$TMPDIR\" && exec \"$0\" \"$@\"");
    command.args(["--map-root-user", "--mount", "/bin/sh", "-c", &script]).arg(original.get_program());
    command.args(original.get_args());
    as_before(folder, command, &original);
}

/// Where and with what environment the command was to run.
fn as_before(folder: &Path, command: &mut Command, original: &Command) {
    let variables = original.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.current_dir(folder).env_clear().envs(variables);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_the_machine_is_found_alone_and_its_fix_named() {
    let mut setup = Setup::new().await;
    setup.plant("nothing", &[], &[], &|_, _| {});
    engines(&mut setup);
    rooms_and_programs(&mut setup);
    access(&mut setup);
    files(&mut setup);
    eprintln!("{} faults of a machine planted", setup.planted);
}

/// Without an engine there is no folder of it either.
fn engines(setup: &mut Setup) {
    let bad = [("engine", "bad")];
    setup.plant("no engine there", &bad, &["start the engine", "DOCKER_HOST"], &|_, command| {
        command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    });
    setup.plant("an engine that stopped", &bad, &["systemctl start docker"], &|folder, command| {
        let socket = folder.join("engine.sock");
        drop(UnixListener::bind(&socket).unwrap());
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
    });
    setup.plant("an address of another kind", &bad, &["unix:///path"], &|_, command| {
        command.env("DOCKER_HOST", "ssh://build.example.com");
    });
    setup.plant("an engine for others alone", &bad, &["usermod -aG docker"], &|folder, command| {
        let socket = folder.join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
        // It listens until the tests end.
        std::mem::forget(listener);
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        if nix::unistd::geteuid().is_root() {
            as_nobody(folder, command);
        }
    });
    setup.plant(
        "no engine for a local region",
        &[("engine", "bad"), ("region", "bad")],
        &["DOCKER_HOST"],
        &|folder, command| {
            edit(folder, |file| file["aws"] = json!({ "endpoint": "local" }));
            command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
        },
    );
}

/// Root may use any socket, so the command is somebody else's.
fn as_nobody(folder: &Path, command: &mut Command) {
    // A temporary folder is its owner's alone, and so may be the one of the program.
    let program = folder.join("alcedo");
    fs::copy(command.get_program(), &program).unwrap();
    for path in [folder.parent().unwrap(), folder, &program] {
        executable(path);
    }
    fs::set_permissions(folder.join("tmp"), fs::Permissions::from_mode(0o777)).unwrap();
    let original = std::mem::replace(command, Command::new("/usr/bin/setpriv"));
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(original.get_args());
    as_before(folder, command, &original);
}

fn rooms_and_programs(setup: &mut Setup) {
    let space = ["TMPDIR"];
    setup.plant("a full disk", &[("space", "bad")], &space, &|folder, command| with_small_tmp(folder, command, "1m"));
    setup.plant("a small disk", &[("space", "warning")], &space, &|folder, command| {
        with_small_tmp(folder, command, "256m");
    });
    setup.plant("no temporary folder", &[("space", "bad")], &space, &|folder, command| {
        command.env("TMPDIR", folder.join("nowhere"));
    });
    for (program, package) in [
        ("ssh", "apt-get install openssh-client"),
        ("ssh-keygen", "apt-get install openssh-client"),
        ("mmdebstrap", "apt-get install mmdebstrap"),
        ("ansible-playbook", "apt-get install ansible-core"),
        ("curl", "install curl"),
    ] {
        setup.plant(&format!("no {program}"), &[("programs", "bad")], &[package], &|folder, _| {
            fs::remove_file(folder.join("bin").join(program)).unwrap();
        });
    }
    setup.plant("no git", &[("programs", "bad")], &["apt-get install git"], &|folder, _| {
        fs::create_dir(folder.join(".git")).unwrap();
        fs::remove_file(folder.join("bin/git")).unwrap();
    });
    setup.plant("a script that lost its mode", &[("programs", "bad")], &["chmod +x ./smoke.sh"], &|folder, _| {
        fs::set_permissions(folder.join("smoke.sh"), fs::Permissions::from_mode(0o644)).unwrap();
    });
}

fn access(setup: &mut Setup) {
    let credentials = [("credentials", "bad")];
    setup.plant("no credentials", &credentials, &["AWS_PROFILE", "aws sso login"], &|_, command| {
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    });
    setup.plant("a profile that is not there", &credentials, &["aws.profile"], &|folder, command| {
        edit(folder, |file| file["aws"]["profile"] = "nobody".into());
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    });
    for (what, name) in [("a wrong secret", "AWS_SECRET_ACCESS_KEY"), ("a wrong key", "AWS_ACCESS_KEY_ID")] {
        setup.plant(what, &credentials, &["not valid for this endpoint"], &|_, command| {
            command.env(name, "AKIAWRONG");
        });
    }
    setup.plant("no region", &[("region", "bad")], &["aws.region", "AWS_REGION"], &|_, command| {
        command.env_remove("AWS_REGION");
    });
    let unreachable = [("credentials", "bad"), ("clock", "warning")];
    setup.plant("nobody at the endpoint", &unreachable, &["network", "aws.endpoint"], &|folder, _| {
        edit(folder, |file| file["aws"]["endpoint"] = NOBODY.into());
    });
    let address = [("own address", "bad")];
    setup.plant("nobody tells the address", &address, &["ALCEDO_CHECK_IP_URL"], &|_, command| {
        command.env("ALCEDO_CHECK_IP_URL", NOBODY);
    });
    // What answers is a page, not an address.
    let page = format!("{}/health", setup.account.endpoint().url);
    setup.plant("a page instead of an address", &address, &["ALCEDO_CHECK_IP_URL"], &|_, command| {
        command.env("ALCEDO_CHECK_IP_URL", &page);
    });
}

fn files(setup: &mut Setup) {
    for (source, named) in [
        (json!({ "environment": "HELLO_TOKEN" }), "HELLO_TOKEN"),
        (json!({ "file": "/nowhere/token" }), "/nowhere/token"),
        (json!({ "ssm": "/hello/token" }), "/hello/token"),
    ] {
        setup.plant(&format!("no {}", named.replace('/', "-")), &[("secrets", "bad")], &[named], &|folder, _| {
            edit(folder, |file| file["secrets"] = json!({ "TOKEN": source }));
        });
    }
    for path in ["deploy/provision.sh", "deploy/site.yml", "deploy/user-data.sh", "smoke.sh"] {
        setup.plant_in_file(&path.replace('/', "-"), path, &|folder| fs::remove_file(folder.join(path)).unwrap());
    }
    setup.plant_in_file("no recipe", "./recipes/web", &|folder| {
        edit(folder, |file| file["build"]["recipe"] = "./recipes/web".into());
    });
    setup.plant_in_file("too much user data", "16384", &|folder| {
        fs::write(folder.join("deploy/user-data.sh"), vec![b'#'; 16385]).unwrap();
    });
}

fn edit(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("alcedo.yaml");
    let mut file: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut file);
    fs::write(path, file.to_string()).unwrap();
}
