//! A look at an environment in few calls. A fleet's target group says by its tags at which listener it was launched, and by
//! which URL people reach the app there: neither the balancer nor its listeners have to be found by their names.
//!
//! **Guarantee.** What the listener does is read from the listener. Where the tags are not there, do not all say the same, or
//! name another listener than the file, nothing is known ([`None`]), and whoever asks looks at everything.
//! **Caveat.** That a listener has got another port since is not seen. Who owns a preview rule is not looked at.

use alcedo_pipeline::file;
use aws_sdk_elasticloadbalancingv2::types::Rule;

use super::{
    Balancer, FactsError, Fleet,
    balancer::rules,
    fleets::{self, Tagged},
};
use crate::{listener::Routing, site::Site, tags};

/// What the listener does, and the fleets that are behind it or may be.
pub struct Glance {
    /// Where people reach the app.
    pub url: String,
    pub routing: Routing,
    /// Without their servers, and without their preview rules.
    pub fleets: Vec<Fleet>,
}

/// Of a fleet that is launched at this balancer: its listener, as its target group's tag has it.
pub fn listener_tag(balancer: &Balancer) -> String {
    format!("{} {}", balancer.port, balancer.listener)
}

/// Two calls, and one for each further hundred rules, twenty target groups of the app or four hundred of the account.
///
/// # Errors
/// The cloud could not be asked.
pub async fn glance(site: &Site) -> Result<Option<Glance>, FactsError> {
    let mut tagged = fleets::tagged(site, None).await?;
    tagged.groups.retain(|_, tags| tags.get(tags::ENVIRONMENT) == Some(&site.environment));
    let Some((listener, url)) = place(site, &tagged) else { return Ok(None) };
    let rules = match rules(&site.clients, &listener).await {
        Ok(rules) => rules,
        Err(error) if error.is("ListenerNotFound") => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(routing) = production(&rules, &site.pipeline.flip.listener) else { return Ok(None) };
    let fleets = fleets::with_weights(site, tagged, &routing);
    Ok(Some(Glance { url, routing, fleets }))
}

/// The listener and the URL that all of the environment's target groups name, where the file means the same.
fn place(site: &Site, tagged: &Tagged) -> Option<(String, String)> {
    let mut all = tagged.groups.values().map(|tags| (tags.get(tags::LISTENER), tags.get(tags::URL)));
    let (listener, url) = all.next()?;
    if all.any(|(other, _)| other != listener) {
        return None;
    }
    let (port, arn) = listener?.split_once(' ')?;
    let wanted = &site.pipeline.flip.listener;
    // `…:listener/app/<name>/<balancer>/<listener>` is of `…:loadbalancer/app/<name>/<balancer>`.
    let balancer = arn.rsplit_once('/')?.0.replacen(":listener/", ":loadbalancer/", 1);
    let name = balancer.split('/').nth(2)?;
    let is_meant = wanted.load_balancer == name || wanted.load_balancer == balancer;
    let url = site.pipeline.flip.url.clone().or_else(|| url.map(str::to_owned))?;
    (is_meant && port == wanted.port.to_string()).then(|| (arn.to_owned(), url))
}

/// What the rule does that the file names, or the default: AWS counts the default action among the rules.
fn production(rules: &[Rule], wanted: &file::Listener) -> Option<Routing> {
    let priority = wanted.rule.map_or_else(|| "default".to_owned(), |priority| priority.to_string());
    let rule = rules.iter().find(|rule| rule.priority() == Some(&priority))?;
    Routing::read(rule.actions()).ok()
}
