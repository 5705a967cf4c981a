//! ARNs in AWS's form, and what a name may be.

use super::Refusal;

/// The account that every record of a local region belongs to.
pub const ACCOUNT: &str = "000000000000";

/// Most characters in the name of a load balancer or target group (ELBv2 API reference).
const LONGEST_NAME: usize = 32;

/// `id` is the last part, 16 hexadecimal digits at AWS.
pub fn load_balancer_arn(region: &str, name: &str, id: &str) -> String {
    format!("arn:aws:elasticloadbalancing:{region}:{ACCOUNT}:loadbalancer/app/{name}/{id}")
}

pub fn target_group_arn(region: &str, name: &str, id: &str) -> String {
    format!("arn:aws:elasticloadbalancing:{region}:{ACCOUNT}:targetgroup/{name}/{id}")
}

/// A listener's ARN repeats its load balancer's name and id.
pub fn listener_arn(load_balancer_arn: &str, id: &str) -> String {
    format!("{}/{id}", load_balancer_arn.replacen(":loadbalancer/", ":listener/", 1))
}

/// A rule's ARN repeats its listener's.
pub fn rule_arn(listener_arn: &str, id: &str) -> String {
    format!("{}/{id}", listener_arn.replacen(":listener/", ":listener-rule/", 1))
}

/// The part of a load balancer's or target group's ARN by which CloudWatch and access logs name it.
pub fn full_name(arn: &str) -> &str {
    arn.rsplit(':').next().unwrap_or(arn)
}

/// `app/<name>/<id>`: how CloudWatch names the load balancer of a listener's ARN, `…:listener/app/<name>/<id>/<listener>`.
pub fn balancer_of_listener(listener_arn: &str) -> &str {
    let name = full_name(listener_arn);
    let name = name.strip_prefix("listener/").unwrap_or(name);
    name.rsplit_once('/').map_or(name, |(balancer, _)| balancer)
}

/// Checks the name of a load balancer or target group; `what` is how the message names it.
///
/// # Errors
/// `ValidationError` where the name is too long, holds other characters than letters, digits and hyphens, begins or
/// ends with a hyphen, or begins with `internal-` (ELBv2 API reference).
pub fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let refuse = |why: &str| Err(Refusal::validation(format!("The {what} name '{name}' {why}")));
    if name.is_empty() || name.len() > LONGEST_NAME {
        return refuse(&format!("must have between 1 and {LONGEST_NAME} characters"));
    }
    if !name.chars().all(|character| character.is_ascii_alphanumeric() || character == '-') {
        return refuse("can only contain characters that are alphanumeric characters and hyphens(-)");
    }
    if name.starts_with('-') || name.ends_with('-') {
        return refuse("cannot begin or end with a hyphen(-)");
    }
    if name.starts_with("internal-") {
        return refuse("cannot begin with 'internal-'");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_repeat_what_they_belong_to() {
        let balancer = load_balancer_arn("eu-west-1", "web", "50dc6c495c0c9188");
        let listener = listener_arn(&balancer, "f2f7dc8efc522ab2");
        assert_eq!(
            rule_arn(&listener, "9683b2d02a6cabee"),
            "arn:aws:elasticloadbalancing:eu-west-1:000000000000:listener-rule/app/web/50dc6c495c0c9188/\
             f2f7dc8efc522ab2/9683b2d02a6cabee"
        );
        assert_eq!(balancer_of_listener(&listener), "app/web/50dc6c495c0c9188");
        assert_eq!(full_name(&target_group_arn("eu-west-1", "blue", "1234")), "targetgroup/blue/1234");
    }

    #[test]
    fn names_follow_the_api_reference() {
        for good in ["a", "blue-2026", "A1", &"x".repeat(32)] {
            assert!(check_name("target group", good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a_b", "internal-a", &"x".repeat(33)] {
            assert!(check_name("target group", bad).is_err(), "{bad}");
        }
    }
}
