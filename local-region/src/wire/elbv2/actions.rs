//! Actions of listeners and rules, read and written.

use super::{
    ApiError, Params, Xml,
    input::{invalid, read as number, required},
};
use crate::state::elbv2::{
    Action, ActionKind, Forward, WeightedGroup,
    listener::{FixedResponse, Redirect},
};

/// The action of the list `name`, which must have exactly one.
pub fn read(params: &Params, name: &str) -> Result<Action, ApiError> {
    let prefixes = params.groups(name);
    let [prefix] = prefixes.as_slice() else {
        return Err(match prefixes.len() {
            0 => invalid(format!("'{name}' must be specified")),
            _ => ApiError::unsupported("more than one action (authenticating a client before another action)"),
        });
    };
    let order = number(params, &format!("{prefix}.Order"))?;
    let kind = match required(params, &format!("{prefix}.Type"))? {
        "forward" => ActionKind::Forward(forward(params, prefix)?),
        "fixed-response" => ActionKind::FixedResponse(fixed_response(params, prefix)?),
        "redirect" => ActionKind::Redirect(redirect(params, prefix)?),
        other => return Err(ApiError::unsupported(&format!("actions of type {other}"))),
    };
    Ok(Action { order, kind })
}

/// A forward action names its groups in `ForwardConfig`, or one group directly; where it does both, they must agree.
fn forward(params: &Params, prefix: &str) -> Result<Forward, ApiError> {
    let config = format!("{prefix}.ForwardConfig");
    let mut groups = Vec::new();
    for group in params.groups(&format!("{config}.TargetGroups")) {
        let arn = required(params, &format!("{group}.TargetGroupArn"))?.to_owned();
        groups.push(WeightedGroup { arn, weight: number(params, &format!("{group}.Weight"))?.unwrap_or(1) });
    }
    if let Some(arn) = params.get(&format!("{prefix}.TargetGroupArn")) {
        match groups.as_slice() {
            [] => groups.push(WeightedGroup { arn: arn.into(), weight: 1 }),
            [only] if only.arn == arn => {}
            _ => return Err(invalid("TargetGroupArn and ForwardConfig must name the same target group")),
        }
    }
    let sticky = format!("{config}.TargetGroupStickinessConfig");
    let sticky_seconds = match number::<bool>(params, &format!("{sticky}.Enabled"))? {
        Some(true) => {
            let seconds = number(params, &format!("{sticky}.DurationSeconds"))?;
            Some(seconds.ok_or_else(|| invalid("Stickiness that is enabled must have 'DurationSeconds'"))?)
        }
        _ => None,
    };
    Ok(Forward { groups, sticky_seconds })
}

fn fixed_response(params: &Params, prefix: &str) -> Result<FixedResponse, ApiError> {
    let config = format!("{prefix}.FixedResponseConfig");
    let status = format!("{config}.StatusCode");
    Ok(FixedResponse {
        status: number(params, &status)?.ok_or_else(|| invalid(format!("'{status}' must be specified")))?,
        content_type: params.get(&format!("{config}.ContentType")).map(str::to_owned),
        body: params.get(&format!("{config}.MessageBody")).map(str::to_owned),
    })
}

fn redirect(params: &Params, prefix: &str) -> Result<Redirect, ApiError> {
    let config = format!("{prefix}.RedirectConfig");
    let part = |name: &str, unchanged: &str| params.get(&format!("{config}.{name}")).unwrap_or(unchanged).to_owned();
    let status = match required(params, &format!("{config}.StatusCode"))? {
        "HTTP_301" => 301,
        "HTTP_302" => 302,
        other => return Err(invalid(format!("The status code '{other}' must be HTTP_301 or HTTP_302"))),
    };
    Ok(Redirect {
        protocol: part("Protocol", "#{protocol}"),
        host: part("Host", "#{host}"),
        port: part("Port", "#{port}"),
        path: part("Path", "/#{path}"),
        query: part("Query", "#{query}"),
        status,
    })
}

pub fn xml(action: &Action) -> Vec<Xml> {
    let mut parts = Vec::new();
    match &action.kind {
        ActionKind::Forward(forward) => {
            parts.push(Xml::text("Type", "forward"));
            if let [only] = forward.groups.as_slice() {
                parts.push(Xml::text("TargetGroupArn", &only.arn));
            }
            parts.push(forward_xml(forward));
        }
        ActionKind::FixedResponse(response) => {
            parts.push(Xml::text("Type", "fixed-response"));
            let config = [Xml::text("StatusCode", response.status)];
            parts.push(Xml::node(
                "FixedResponseConfig",
                config
                    .into_iter()
                    .chain(Xml::maybe("ContentType", response.content_type.as_ref()))
                    .chain(Xml::maybe("MessageBody", response.body.as_ref())),
            ));
        }
        ActionKind::Redirect(redirect) => {
            parts.push(Xml::text("Type", "redirect"));
            parts.push(Xml::node(
                "RedirectConfig",
                [
                    Xml::text("Protocol", &redirect.protocol),
                    Xml::text("Host", &redirect.host),
                    Xml::text("Port", &redirect.port),
                    Xml::text("Path", &redirect.path),
                    Xml::text("Query", &redirect.query),
                    Xml::text("StatusCode", format!("HTTP_{}", redirect.status)),
                ],
            ));
        }
    }
    parts.extend(Xml::maybe("Order", action.order));
    parts
}

fn forward_xml(forward: &Forward) -> Xml {
    let groups = forward
        .groups
        .iter()
        .map(|group| vec![Xml::text("TargetGroupArn", &group.arn), Xml::text("Weight", group.weight)]);
    let sticky = [Xml::text("Enabled", forward.sticky_seconds.is_some())];
    Xml::node(
        "ForwardConfig",
        [
            Xml::list("TargetGroups", "member", groups),
            Xml::node(
                "TargetGroupStickinessConfig",
                sticky.into_iter().chain(Xml::maybe("DurationSeconds", forward.sticky_seconds)),
            ),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_form(form: &str) -> Result<Action, ApiError> {
        read(&Params::decode(form.as_bytes()), "Actions")
    }

    #[test]
    fn one_group_can_be_named_in_two_ways() {
        let short = read_form("Actions.member.1.Type=forward&Actions.member.1.TargetGroupArn=g").unwrap();
        let long = read_form(
            "Actions.member.1.Type=forward&Actions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn=g",
        )
        .unwrap();
        assert_eq!(short, long);
    }

    #[test]
    fn weights_and_stickiness_are_read_and_written() {
        let action = read_form(
            "Actions.member.1.Type=forward&Actions.member.1.Order=1\
             &Actions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn=a\
             &Actions.member.1.ForwardConfig.TargetGroups.member.1.Weight=0\
             &Actions.member.1.ForwardConfig.TargetGroups.member.2.TargetGroupArn=b\
             &Actions.member.1.ForwardConfig.TargetGroups.member.2.Weight=10\
             &Actions.member.1.ForwardConfig.TargetGroupStickinessConfig.Enabled=true\
             &Actions.member.1.ForwardConfig.TargetGroupStickinessConfig.DurationSeconds=60",
        )
        .unwrap();
        let written = Xml::node("Action", xml(&action)).document();
        assert!(written.contains("<TargetGroupArn>a</TargetGroupArn><Weight>0</Weight>"), "{written}");
        assert!(written.contains("<Enabled>true</Enabled><DurationSeconds>60</DurationSeconds>"), "{written}");
        assert!(!written.contains("<Type>forward</Type><TargetGroupArn>"), "{written}");
    }

    #[test]
    fn what_is_not_implemented_is_named() {
        let error = read_form("Actions.member.1.Type=authenticate-oidc").unwrap_err();
        assert_eq!(error.code, "Unsupported");
        assert!(error.message.contains("authenticate-oidc"), "{}", error.message);
    }
}
