//! A session to a server whose host key was read from its console before the first byte was sent to it.

use std::time::Duration;

use alcedo_images::{
    console::{self, ConsoleError},
    key::EphemeralKey,
    session::{self, Session, SshTarget},
};
use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    wait::{Look, Wait},
};

use alcedo_smoke_tests::{Shell, ShellCommand};

use crate::{clients::Clients, servers};

/// How to log in.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    pub user: &'a str,
    pub port: u16,
    pub private_address: bool,
}

/// Opens a session, waiting for the console to tell the host keys and for sshd to answer.
///
/// **Guarantees.** Fails closed: where the console never tells a host key, nothing is sent.
pub async fn open(
    clients: &Clients,
    context: &StepContext,
    server: &servers::Server,
    login: Login<'_>,
    key: &EphemeralKey,
    deadline: Duration,
) -> Result<Session, StepError> {
    let host = server.address(login.private_address).ok_or_else(|| {
        StepError::failed(format!("server {} has no address that can be reached from here", server.id)).hint(
            "give its subnet public addresses, or set bake.private_address where this machine is inside the network",
        )
    })?;
    let wait = Wait::new(Duration::from_millis(250), deadline);
    let pins = wait
        .until(context, "the server's host keys on its console", || async {
            let text = servers::console(clients, &server.id).await?;
            match console::host_keys(&text) {
                Ok(pins) => Ok(Look::Ready(pins)),
                Err(ConsoleError::NotYet) => {
                    Ok(Look::NotYet(format!("{}: the console shows no host keys yet", server.id)))
                }
                Err(error) => {
                    Err(StepError::failed(format!("the host keys of {} cannot be trusted", server.id)).because(error))
                }
            }
        })
        .await?;
    let target = SshTarget { host: host.to_string(), port: login.port, user: login.user.to_owned() };
    context.waiting(format!("connecting to {}@{host}", login.user));
    tokio::select! {
        session = session::connect(&target, key, &pins, deadline) => session.map_err(|error| {
            let hint = error.hint();
            let step = StepError::new(ErrorKind::Service, format!("there is no SSH session to {host}")).because(error);
            hint.into_iter().fold(step, StepError::hint)
        }),
        () = context.cancellation().cancelled() => Err(StepError::interrupted()),
    }
}

/// Takes the run's key off a server: nobody can log in with it afterwards.
pub async fn lock_out(key: &EphemeralKey, context: &StepContext, server: &servers::Server, session: &Session) {
    let remove = format!("sed -i '\\#{}#d' ~/.ssh/authorized_keys", key.public_base64());
    if let Err(error) = session.run(&ShellCommand::new(remove)).await {
        context.warn(format!("the ephemeral key could not be taken off {}: {error}", server.id), None);
    }
}
