//! TerminateInstances, StopInstances, StartInstances and RebootInstances.

use std::sync::Arc;

use super::{Answer, done, instances, refuse_dry_run};
use crate::{
    region::Region,
    servers,
    state::ec2::InstanceState,
    wire::{ApiError, Params, Xml},
};

pub fn terminate_instances(params: &Params, region: &Arc<Region>) -> Answer {
    move_all(params, region, InstanceState::ShuttingDown)
}

pub fn stop_instances(params: &Params, region: &Arc<Region>) -> Answer {
    move_all(params, region, InstanceState::Stopping)
}

pub fn start_instances(params: &Params, region: &Arc<Region>) -> Answer {
    move_all(params, region, InstanceState::Pending)
}

/// Answers at once, as EC2 does; the guests restart beside the requests.
pub fn reboot_instances(params: &Params, region: &Arc<Region>) -> Answer {
    let ids = named(params)?;
    let moment = region.moment();
    region.read(|world| {
        for id in &ids {
            let state = world.ec2.find_instance(id, moment)?.state;
            if state != InstanceState::Running {
                let message = format!("The instance '{id}' is {}, not running", state.name());
                return Err(ApiError::bad("IncorrectInstanceState", message));
            }
        }
        Ok(())
    })?;
    refuse_dry_run(params)?;
    for id in ids {
        servers::reboot(region, id);
    }
    done()
}

fn named(params: &Params) -> Result<Vec<&str>, ApiError> {
    let ids = params.list("InstanceId");
    if ids.is_empty() {
        return Err(ApiError::missing("InstanceId"));
    }
    Ok(ids)
}

fn move_all(params: &Params, region: &Arc<Region>, next: InstanceState) -> Answer {
    let ids = named(params)?;
    refuse_dry_run(params)?;
    let moment = region.moment();
    let changes = region.change(|world| world.ec2.move_all(&ids, next, moment))?;
    for change in changes.iter().filter(|change| change.before != change.after) {
        servers::follow(region, &change.instance_id);
    }
    let items = changes.into_iter().map(|change| {
        vec![
            Xml::text("instanceId", change.instance_id),
            instances::state("currentState", change.after),
            instances::state("previousState", change.before),
        ]
    });
    Ok(vec![Xml::list("instancesSet", "item", items)])
}
