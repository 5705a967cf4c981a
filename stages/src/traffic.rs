//! How many requests a second each version had around a flip: from CloudWatch, as text and as a picture.

use std::collections::BTreeMap;

use alcedo_pipeline::{
    event::{Event, What},
    journal,
    plan::Plan,
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use plotters::{prelude::*, series::LineSeries};

use crate::{
    action::Action,
    cloud_error::CloudError,
    flip::{Group, SWITCH},
    launch::{MadeGroup, TARGET_GROUP},
    metrics::{self, PERIOD_S},
    site::Site,
};

/// What is shown before the flip, and at most after it.
const BEFORE: SignedDuration = SignedDuration::from_mins(5);
const AFTER: SignedDuration = SignedDuration::from_mins(15);
/// Of the picture, in pixels.
const SIZE: (u32, u32) = (720, 300);
/// Blue and green are roles: the version that was in service is drawn blue, the other green.
const COLOURS: [RGBColor; 2] = [RGBColor(31, 96, 168), RGBColor(24, 138, 82)];
/// Eighths of a line's height.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Requests a second, minute by minute.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    /// The beginning of the first minute.
    pub from: Timestamp,
    /// When the listener was about to be changed.
    pub flip: Timestamp,
    /// The version that was in service first, then the one that replaced it; as many values as minutes.
    pub versions: Vec<(String, Vec<f64>)>,
}

/// What a run's flip did to the traffic; `None` where it has not come to one, or nothing has been measured.
///
/// # Errors
/// CloudWatch cannot be asked.
pub async fn of_run(site: &Site, plan: &Plan, events: &[Event]) -> Result<Option<Traffic>, CloudError> {
    let Some(step) = plan.step(&SWITCH.into()) else { return Ok(None) };
    let Ok(Action::Switch(switch)) = serde_json::from_value(step.action.clone()) else { return Ok(None) };
    let begun = |event: &&Event| matches!(&event.what, What::StepStarted { step, .. } if step.as_str() == SWITCH);
    let Some(flip) = events.iter().find(begun).map(|event| event.at) else { return Ok(None) };
    let green = match &switch.green {
        Group::Known(arn) => Some(arn.clone()),
        Group::Made => events.iter().find_map(made_group),
    };
    let serving = switch.before.serving();
    let (Some(green), [blue]) = (green, serving.as_slice()) else { return Ok(None) };
    let replaced = plan.replaces.map_or_else(|| "before".to_owned(), |version| version.to_string());
    let span = (earlier(flip), site.now().min(flip.saturating_add(AFTER).unwrap_or(Timestamp::MAX)));
    let counted = metrics::requests(&site.clients, &switch.judge.balancer, &[blue, &green], span).await?;
    Ok(Traffic::of(flip, span, [replaced, switch.version], &counted))
}

fn made_group(event: &Event) -> Option<String> {
    match &event.what {
        What::StepSucceeded { step, output, .. } if step.as_str() == TARGET_GROUP => {
            serde_json::from_value::<MadeGroup>(output.clone()).ok().map(|made| made.arn)
        }
        _ => None,
    }
}

fn earlier(flip: Timestamp) -> Timestamp {
    let from = flip.saturating_sub(BEFORE).unwrap_or(Timestamp::MIN).as_second();
    Timestamp::from_second(from - from.rem_euclid(i64::from(PERIOD_S))).unwrap_or(Timestamp::MIN)
}

impl Traffic {
    #[expect(clippy::cast_precision_loss, reason = "seconds of an hour")]
    fn of(
        flip: Timestamp,
        (from, to): (Timestamp, Timestamp),
        versions: [String; 2],
        counted: &[BTreeMap<Timestamp, f64>],
    ) -> Option<Self> {
        if counted.iter().all(BTreeMap::is_empty) {
            return None;
        }
        let minutes: Vec<i64> =
            (from.as_second()..to.as_second()).step_by(usize::try_from(PERIOD_S).unwrap_or(1)).collect();
        let per_second = |counts: &BTreeMap<Timestamp, f64>| {
            let minute = |start: &i64| {
                // The last minute may not be over.
                let seconds = (to.as_second() - start).min(i64::from(PERIOD_S)).max(1) as f64;
                let at = Timestamp::from_second(*start).ok();
                at.and_then(|at| counts.get(&at)).map_or(0.0, |count| count / seconds)
            };
            minutes.iter().map(minute).collect::<Vec<f64>>()
        };
        let versions = versions.into_iter().zip(counted.iter().map(per_second)).collect();
        Some(Self { from, flip, versions })
    }

    /// The largest value.
    fn most(&self) -> f64 {
        self.versions.iter().flat_map(|(_, values)| values.iter().copied()).fold(0.0, f64::max)
    }

    /// A line a version, a column a minute.
    pub fn text(&self) -> String {
        let most = self.most();
        let bar = |value: &f64| {
            if *value <= 0.0 {
                return ' ';
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most eight")]
            let eighths = (value / most * 8.0).ceil() as usize;
            BARS[eighths.clamp(1, BARS.len()) - 1]
        };
        let mut text = String::new();
        for (version, values) in &self.versions {
            let bars: String = values.iter().map(bar).collect();
            let peak = values.iter().copied().fold(0.0, f64::max);
            text.push_str(&format!("{version:<17} {bars}  {peak:.1}/s at most\n"));
        }
        let clock = |at: Timestamp| at.to_zoned(TimeZone::UTC).strftime("%H:%M").to_string();
        let (from, flip) = (clock(self.from), clock(self.flip));
        text.push_str(&format!("requests by the minute, from {from} on; the flip was at {flip} UTC\n"));
        text
    }

    /// The same as an SVG picture.
    ///
    /// # Errors
    /// The picture cannot be drawn, for which there is no known reason.
    pub fn svg(&self) -> Result<String, String> {
        let mut picture = String::new();
        self.draw(&mut picture).map_err(|error| error.to_string())?;
        Ok(picture)
    }

    #[expect(clippy::cast_precision_loss, reason = "minutes of an hour")]
    fn draw(&self, picture: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let minutes = self.versions.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
        let area = SVGBackend::with_string(picture, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(52)
            .caption("requests per second", ("sans-serif", 15))
            .build_cartesian_2d(0.0..minutes.max(1) as f64, 0.0..(self.most() * 1.1).max(1.0))?;
        chart.configure_mesh().x_desc("minutes").light_line_style(WHITE).draw()?;
        for ((version, values), colour) in self.versions.iter().zip(COLOURS) {
            let points = values.iter().enumerate().map(|(minute, value)| (minute as f64 + 0.5, *value));
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(version)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        }
        let flip = self.flip.duration_since(self.from).as_secs_f64() / f64::from(PERIOD_S);
        let line = [(flip, 0.0), (flip, self.most().max(1.0))];
        chart
            .draw_series(LineSeries::new(line, BLACK.mix(0.4)))?
            .label("flip")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], BLACK.mix(0.4)));
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw()?;
        area.present()?;
        Ok(())
    }
}

/// Puts the picture beside the run. Answers where it is.
///
/// # Errors
/// It cannot be drawn or kept.
pub async fn keep(site: &Site, plan: &Plan, traffic: &Traffic) -> Result<String, String> {
    let key = journal::picture_key(&site.root, &plan.run);
    let put = site.clients.s3.put_object().bucket(site.bucket()).key(&key).content_type("image/svg+xml");
    let put = put.if_none_match("*").body(traffic.svg()?.into_bytes().into()).send().await;
    match put.map_err(|error| CloudError::of("keep the picture of the traffic", error)) {
        // A process that ended the run before has kept one.
        Err(error) if !error.is("PreconditionFailed") => return Err(error.to_string()),
        _ => {}
    }
    Ok(format!("s3://{}/{key}", site.bucket()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic() -> Traffic {
        let flip: Timestamp = "2026-11-20T19:07:30Z".parse().unwrap();
        let at = |minute: i64| flip + SignedDuration::from_secs(60 * minute - 30);
        let blue = (-5..=0).map(|minute| (at(minute), if minute < 0 { 600.0 } else { 300.0 })).collect();
        let green = (0..=2).map(|minute| (at(minute), if minute == 0 { 300.0 } else { 600.0 })).collect();
        let span = (earlier(flip), flip + SignedDuration::from_secs(150));
        let versions = ["2026.1119.80000".to_owned(), "2026.1120.190512".to_owned()];
        Traffic::of(flip, span, versions, &[blue, green]).expect("something was measured")
    }

    #[test]
    fn each_version_has_a_line_and_each_minute_a_column() {
        insta::assert_snapshot!(traffic().text(), @"
        2026.1119.80000   █████▄    10.0/s at most
        2026.1120.190512       ▄██  10.0/s at most
        requests by the minute, from 19:02 on; the flip was at 19:07 UTC
        ");
    }

    #[test]
    fn the_picture_shows_both_versions_and_the_flip() {
        let svg = traffic().svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for colour in ["#1F60A8", "#188A52"] {
            assert_eq!(svg.matches(colour).count(), 2, "a line of {colour}, and one in the legend: {svg}");
        }
        for text in ["2026.1119.80000", "2026.1120.190512", "requests per second"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn without_requests_there_is_nothing_to_show() {
        let flip: Timestamp = "2026-11-20T19:07:30Z".parse().unwrap();
        let none = [BTreeMap::new(), BTreeMap::new()];
        assert_eq!(Traffic::of(flip, (earlier(flip), flip), ["a".into(), "b".into()], &none), None);
    }
}
