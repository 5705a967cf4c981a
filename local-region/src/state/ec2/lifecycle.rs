//! What happens to instances after their launch.

use jiff::Timestamp;

use super::{
    Ec2, Instance, InstanceState, Moment,
    instance::{StateReason, TERMINATED_VISIBLE_FOR},
};
use crate::wire::ApiError;

/// One instance's change of state, as Terminate-, Stop- and StartInstances answer it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    pub instance_id: String,
    pub before: InstanceState,
    pub after: InstanceState,
}

/// Why an instance ended, in EC2's words.
pub fn user_ended() -> StateReason {
    StateReason {
        code: "Client.UserInitiatedShutdown".to_owned(),
        message: "Client.UserInitiatedShutdown: User initiated shutdown".to_owned(),
    }
}

/// The guest's own shutdown.
pub fn guest_ended() -> StateReason {
    StateReason {
        code: "Client.InstanceInitiatedShutdown".to_owned(),
        message: "Client.InstanceInitiatedShutdown: Instance initiated shutdown".to_owned(),
    }
}

/// The engine could not start it, or lost it.
pub fn engine_failed(why: &str) -> StateReason {
    StateReason { code: "Server.InternalError".to_owned(), message: format!("Server.InternalError: {why}") }
}

impl Ec2 {
    /// The instance if a reader already sees it and it was not terminated too long ago.
    pub fn find_instance(&self, instance_id: &str, moment: Moment) -> Result<&Instance, ApiError> {
        let digits = instance_id.strip_prefix("i-").unwrap_or_default();
        if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(ApiError::bad("InvalidInstanceID.Malformed", format!("Invalid id: \"{instance_id}\"")));
        }
        self.instances
            .get(instance_id)
            .filter(|instance| moment.sees(instance.created_at) && is_remembered(instance, moment.now))
            .ok_or_else(|| {
                ApiError::bad("InvalidInstanceID.NotFound", format!("The instance ID '{instance_id}' does not exist"))
            })
    }

    /// Everything a reader sees of the instances.
    pub fn seen_instances(&self, moment: Moment) -> impl Iterator<Item = &Instance> {
        self.instances
            .values()
            .filter(move |instance| moment.sees(instance.created_at) && is_remembered(instance, moment.now))
    }

    /// Moves an instance to `next` and answers its state before; a move that cannot be made is not.
    pub fn set_state(
        &mut self,
        instance_id: &str,
        next: InstanceState,
        reason: Option<StateReason>,
        now: Timestamp,
    ) -> Option<InstanceState> {
        let instance = self.instances.get_mut(instance_id)?;
        let before = instance.state;
        if !before.can_become(next) {
            return None;
        }
        instance.state = next;
        match next {
            InstanceState::Pending => {
                instance.launch_time = now;
                instance.state_reason = None;
                instance.state_transition_reason.clear();
            }
            InstanceState::Terminated => instance.terminated_at = Some(now),
            _ => {}
        }
        if let Some(reason) = reason {
            if reason.code.starts_with("Client.User") {
                instance.state_transition_reason =
                    format!("User initiated ({})", now.strftime("%Y-%m-%d %H:%M:%S GMT"));
            }
            instance.state_reason = Some(reason);
        }
        if next == InstanceState::Terminated {
            self.release_volumes(instance_id);
        }
        Some(before)
    }

    /// Records that the engine has a machine for it.
    pub fn mark_machine(&mut self, instance_id: &str, made: bool) {
        if let Some(instance) = self.instances.get_mut(instance_id) {
            instance.has_machine = made;
        }
    }

    /// Moves all these instances towards `next` where they can go there, and answers each one's change.
    ///
    /// # Errors
    /// An id that is unknown, or termination-protected where `next` ends it; `IncorrectInstanceState` where a stop or
    /// start does not fit. Then no instance was moved.
    pub fn move_all(
        &mut self,
        instance_ids: &[&str],
        next: InstanceState,
        moment: Moment,
    ) -> Result<Vec<StateChange>, ApiError> {
        for id in instance_ids {
            let instance = self.find_instance(id, moment)?;
            let fits = match next {
                InstanceState::ShuttingDown if instance.disable_api_termination => {
                    return Err(ApiError::bad(
                        "OperationNotPermitted",
                        format!(
                            "The instance '{id}' may not be terminated. Modify its 'disableApiTermination' instance \
                             attribute and try again."
                        ),
                    ));
                }
                InstanceState::ShuttingDown => true,
                InstanceState::Stopping => {
                    matches!(instance.state, InstanceState::Running | InstanceState::Stopping | InstanceState::Stopped)
                }
                InstanceState::Pending => {
                    matches!(instance.state, InstanceState::Pending | InstanceState::Running | InstanceState::Stopped)
                }
                _ => false,
            };
            if !fits {
                return Err(ApiError::bad(
                    "IncorrectInstanceState",
                    format!("The instance '{id}' is in the state {}", instance.state.name()),
                ));
            }
        }
        let reason = (next != InstanceState::Pending).then(user_ended);
        Ok(instance_ids
            .iter()
            .map(|id| {
                let before = self.instances[*id].state;
                self.set_state(id, next, reason.clone(), moment.now);
                StateChange { instance_id: (*id).to_owned(), before, after: self.instances[*id].state }
            })
            .collect())
    }

    /// Changes what ModifyInstanceAttribute can change.
    pub fn modify_instance(
        &mut self,
        instance_id: &str,
        moment: Moment,
        change: impl FnOnce(&mut Instance) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        self.find_instance(instance_id, moment)?;
        change(self.instances.get_mut(instance_id).expect("it was just found"))
    }

    /// Forgets instances that were terminated more than an hour ago, and the launches that only they stand for.
    pub fn forget_terminated(&mut self, now: Timestamp) {
        self.instances.retain(|_, instance| is_remembered(instance, now));
        let instances = &self.instances;
        self.launches.retain(|_, launch| launch.instance_ids().iter().any(|id| instances.contains_key(id)));
    }

    fn release_volumes(&mut self, instance_id: &str) {
        self.volumes.retain(|_, volume| match &volume.attachment {
            Some(attachment) if attachment.instance_id == instance_id && attachment.delete_on_termination => false,
            Some(attachment) if attachment.instance_id == instance_id => {
                volume.attachment = None;
                true
            }
            _ => true,
        });
        if let Some(instance) = self.instances.get_mut(instance_id) {
            instance.block_devices.clear();
        }
    }
}

fn is_remembered(instance: &Instance, now: Timestamp) -> bool {
    instance.terminated_at.is_none_or(|at| now.duration_since(at) < TERMINATED_VISIBLE_FOR)
}
