//! GetConsoleOutput.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::SignedDuration;

use super::{Answer, time};
use crate::{
    region::Region,
    servers,
    wire::{Params, Xml},
};

/// The serial console's last 64 KiB. Like at AWS it is empty for a while after boot began: a client waits for what it
/// looks for, or fails closed.
pub async fn get_console_output(params: &Params, region: &Arc<Region>) -> Answer {
    let instance_id = params.require("InstanceId")?;
    let moment = region.moment();
    let (booted, has_machine) = region.read(|world| {
        world.ec2.find_instance(instance_id, moment).map(|it| (it.launch_time, it.has_machine && !it.state.is_ended()))
    })?;
    let lag = SignedDuration::try_from(region.config.lags.console).unwrap_or(SignedDuration::MAX);
    let output = if has_machine && moment.now.duration_since(booted) >= lag {
        let deadline = tokio::time::timeout(CONSOLE_DEADLINE, region.machines.console(instance_id));
        match deadline.await {
            Ok(console) => console.map_err(|error| servers::engine_error(&error))?,
            // Nothing yet is a valid answer, and the client asks again.
            Err(_) => Vec::new(),
        }
    } else {
        Vec::new()
    };
    Ok(vec![
        Xml::text("instanceId", instance_id),
        Xml::text("timestamp", time(moment.now)),
        Xml::text("output", STANDARD.encode(output)),
    ])
}

/// The engine reads the console from its log; one that takes longer than this is stuck.
const CONSOLE_DEADLINE: Duration = Duration::from_secs(10);
