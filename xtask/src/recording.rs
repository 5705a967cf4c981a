//! `cargo xtask recording`: the picture in the README, made anew from a real deploy in a local region.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use avt::Terminal;

use crate::{
    alcedo::{self, Alcedo},
    app_copy::AppCopy,
    demo,
    film::Film,
    process, project, setup,
    terminal::{heading, say},
};

const PICTURE: &str = "docs/deploy.svg";
/// A file in a repository that everybody clones.
const MOST_BYTES: usize = 500 * 1024;

const COLUMNS: usize = 80;
const ROWS: usize = 24;
/// How much faster than the deploy the film is.
const SPEED: f64 = 2.0;
/// Stills in a second of the film.
const STILLS: f64 = 4.0;

/// Beside the ports of the default region, the demo and the bench, so that all may run meanwhile.
const REGION_PORT: u16 = 4597;
const LISTENER_PORT: u16 = 8602;

pub fn run() -> Result<()> {
    let engine = setup::ensure(false)?;
    heading("Build alcedo (minutes the first time)");
    alcedo::build()?;

    heading("A region of its own, with a first version in service");
    let app = AppCopy::make("recording")?;
    app.replace("alcedo.yaml", &demo::LISTENER_PORT.to_string(), &LISTENER_PORT.to_string())?;
    let region = project::target().join("recording/region");
    let alcedo = Alcedo::new(&app.folder, &engine).with_region_folder(&region);
    alcedo.show(&["image", "build"])?;
    // What one that was killed has left.
    alcedo.show(&["region", "reset", "--yes"])?;
    alcedo.show(&["region", "start", "--name", "recording", "--port", &REGION_PORT.to_string()])?;
    let filmed = deploys(&alcedo, &app).and_then(|()| film(&alcedo));
    heading("Remove it");
    let reset = alcedo.show(&["region", "reset", "--yes"]);
    let (svg, took) = filmed?;
    reset?;

    ensure!(svg.len() <= MOST_BYTES, "the picture has {} bytes, more than {MOST_BYTES}", svg.len());
    names_nobody(&svg)?;
    fs::write(project::folder().join(PICTURE), &svg)?;
    say(&format!("{PICTURE}: {} KiB, a deploy of {:.1} s", svg.len() / 1024, took.as_secs_f64()));
    Ok(())
}

/// What the filmed version is told from: with the third, each step of a deploy has been seen, so that the picture can tell
/// how long the whole takes.
const GREETINGS: [&str; 4] = ["Hello from Alcedo.", "Hello again.", "Hello once more.", "Hello, and hold on."];

/// Three versions, each in the place of the one before, and the source of the one that is filmed.
fn deploys(alcedo: &Alcedo, app: &AppCopy) -> Result<()> {
    for greetings in GREETINGS.windows(2) {
        alcedo.run(&["deploy"])?;
        app.replace("main.go", greetings[0], greetings[1])?;
    }
    Ok(())
}

fn film(alcedo: &Alcedo) -> Result<(String, Duration)> {
    heading("The deploy that is filmed");
    let folder = project::target().join("recording");
    let (output, timing) = (folder.join("output"), folder.join("timing"));
    let mut script = alcedo.command("script");
    script.args(["--quiet", "--return", "--flush", "--logging-format", "classic", "--command"]);
    // The command as a person would type it, then itself.
    script.arg(format!("stty cols {COLUMNS} rows {ROWS}; echo '$ alcedo deploy'; exec alcedo deploy"));
    script.arg("--log-out").arg(&output).arg("--log-timing").arg(&timing);
    let programs = alcedo.program();
    let programs = programs.parent().context("alcedo lies in no folder")?;
    let path = std::env::var("PATH").unwrap_or_default();
    // Neither colours nor their absence are this machine's wish.
    script.env("PATH", format!("{}:{path}", programs.display())).env("TERM", "xterm-256color").env_remove("NO_COLOR");
    process::run(script.stdout(std::process::Stdio::null()))?;
    develop(&fs::read(&output)?, &fs::read_to_string(&timing)?)
}

/// Plays to a terminal in memory what `script` has written down, and takes stills of it.
fn develop(output: &[u8], timing: &str) -> Result<(String, Duration)> {
    // `script` writes a line of its own before and after.
    let begin = output.iter().position(|byte| *byte == b'\n').context("script has written nothing down")? + 1;
    let mut rest = &output[begin..];
    let mut terminal = Terminal::new(COLUMNS, ROWS)?;
    let mut film = Film::default();
    let (mut now, mut next) = (0.0, 0.0);
    let mut pending = Vec::new();
    for line in timing.lines() {
        let (pause, bytes) = line.split_once(' ').with_context(|| format!("script's timing has a line {line:?}"))?;
        now += pause.parse::<f64>()?;
        while next <= now {
            film.take(next / SPEED, &terminal);
            next += SPEED / STILLS;
        }
        let (chunk, after) = rest.split_at(bytes.trim().parse::<usize>()?.min(rest.len()));
        rest = after;
        pending.extend_from_slice(chunk);
        // A letter may have been cut in two.
        let whole = std::str::from_utf8(&pending).map_or_else(|error| error.valid_up_to(), str::len);
        let text: Vec<u8> = pending.drain(..whole).collect();
        terminal.feed(std::str::from_utf8(&text)?);
    }
    film.take(now / SPEED, &terminal);
    let caption = format!("a deploy to two real servers on one machine, at {SPEED} times its speed");
    Ok((film.svg(COLUMNS, &caption), Duration::from_secs_f64(now)))
}

/// Whether anything of this machine or of whoever uses it is in the picture.
fn names_nobody(svg: &str) -> Result<()> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let user = std::env::var("USER").unwrap_or_default();
    let places = [project::folder().display().to_string(), std::env::var("HOME").unwrap_or_default()];
    for name in [host.trim().to_owned(), format!("{user}@")].into_iter().chain(places) {
        if name.len() > 1 && svg.contains(&name) {
            bail!("the picture shows {name}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_script_wrote_down_is_played_in_its_time() {
        // The second chunk ends in the middle of a letter.
        let output = "Script started on some day\nfirst\r\n\u{1b}[1Asec\u{2026}nd\r\n\nScript done\n".as_bytes();
        let timing = "1.0 7\n2.0 8\n3.0 7\n";
        let (svg, took) = develop(output, timing).unwrap();
        assert_eq!(took, Duration::from_secs(6));
        assert!(svg.contains(">first</tspan>") && svg.contains(">sec\u{2026}nd</tspan>"), "{svg}");
        assert!(!svg.contains("Script"), "{svg}");
        // The first still is of the empty terminal, the second of 1.5 s, the third of 3.5 s, and the last of the end.
        let stills = svg.matches("<g transform").count();
        assert_eq!(stills, 4, "{svg}");
    }
}
