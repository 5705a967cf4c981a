//! Every call of a deploy that changes something × {its answer is lost, each error that AWS documents for it}: the run
//! comes to its end or is undone, and nothing is made twice.

use alcedo_local_region::faults::{Call, Calls, Effect, Fault, When};
use alcedo_pipeline::{event::Outcome, recovery::Wish};

use super::{Bench, every, is_undone};

/// What any call may be answered with (EC2 and ELB API references, *Common errors*; S3 API reference, *Error responses*).
fn common(service: &str) -> &'static [&'static str] {
    match service {
        "s3" => &["InternalError", "SlowDown", "AccessDenied"],
        "ec2" => &["InternalError", "RequestLimitExceeded", "UnauthorizedOperation"],
        _ => &["InternalFailure", "Throttling", "AccessDenied"],
    }
}

/// What single operations may be answered with besides.
fn special(operation: &str) -> &'static [&'static str] {
    match operation {
        "RunInstances" => &[
            "InsufficientInstanceCapacity",
            "VcpuLimitExceeded",
            "InstanceLimitExceeded",
            "InsufficientFreeAddressesInSubnet",
            "InvalidAMIID.NotFound",
            "InvalidGroup.NotFound",
            "InvalidSubnetID.NotFound",
            "InvalidParameterValue",
            "PendingVerification",
            "Unsupported",
        ],
        "AuthorizeSecurityGroupIngress" => {
            &["RulesPerSecurityGroupLimitExceeded", "InvalidGroup.NotFound", "TagLimitExceeded"]
        }
        "RevokeSecurityGroupIngress" => &["InvalidGroup.NotFound"],
        "CreateImage" => &["InvalidInstanceID.NotFound", "IncorrectInstanceState"],
        "CreateTags" => &["TagLimitExceeded"],
        "ImportKeyPair" => &["InvalidKey.Format", "ResourceLimitExceeded"],
        "TerminateInstances" => &["OperationNotPermitted"],
        "DeregisterImage" => &["InvalidAMIID.Unavailable", "OperationNotPermitted"],
        "DeleteSnapshot" => &["InvalidSnapshot.InUse"],
        "CreateTargetGroup" => &["TooManyTargetGroups", "InvalidConfigurationRequest", "TooManyTags"],
        "DeleteTargetGroup" => &["ResourceInUse"],
        "CreateRule" => &[
            "TooManyRules",
            "PriorityInUse",
            "TooManyTags",
            "TargetGroupNotFound",
            "TargetGroupAssociationLimit",
            "TooManyUniqueTargetGroupsPerLoadBalancer",
            "ListenerNotFound",
        ],
        "ModifyRule" => &["TargetGroupAssociationLimit", "OperationNotPermitted"],
        "DeleteRule" => &["OperationNotPermitted"],
        "RegisterTargets" => &["InvalidTarget", "TooManyTargets", "TooManyRegistrationsForTargetId"],
        "DeregisterTargets" => &["InvalidTarget"],
        "ModifyListener" => &[
            "TargetGroupNotFound",
            "TooManyTargetGroups",
            "TargetGroupAssociationLimit",
            "InvalidConfigurationRequest",
            "TooManyUniqueTargetGroupsPerLoadBalancer",
        ],
        "AddTags" => &["TooManyTags"],
        "PutObject" => &["ConditionalRequestConflict", "RequestTimeout", "ServiceUnavailable"],
        "CompleteMultipartUpload" => &["ConditionalRequestConflict", "InternalError"],
        "UploadPart" => &["RequestTimeout", "BadDigest"],
        _ => &[],
    }
}

/// The n-th call of each operation, for every operation that changes something.
fn changes(calls: &[Call]) -> Vec<(&'static str, String, u64)> {
    let mut seen = std::collections::BTreeMap::new();
    let mut changes = Vec::new();
    for call in calls.iter().filter(|call| call.changing) {
        let nth: &mut u64 = seen.entry((call.service, call.operation.clone())).or_default();
        changes.push((call.service, call.operation.clone(), *nth));
        *nth += 1;
    }
    changes
}

fn strike(service: &str, operation: &str, nth: u64, when: When, effect: Effect) -> Fault {
    let on = Calls {
        service: Some(service.into()),
        operation: Some(operation.into()),
        skip: nth,
        times: Some(1),
        ..Calls::default()
    };
    Fault { on, when, effect }
}

/// Runs a deploy with the fault, and brings it to an end. Answers whether it was undone; where it is done, the bench has had
/// its deploy.
async fn is_undone_by(bench: &Bench, fault: Fault, what: &str) -> bool {
    let plan = bench.plan().await;
    let id = bench.faults().add(fault);
    let ended = bench.walk(&plan, &bench.steps()).await;
    bench.faults().remove(id);
    let outcome = match ended {
        Ok(ending) if ending.outcome == Outcome::Done => {
            // Where its marker could not be taken away, the next run sees that there is nothing to do.
            assert!(bench.recover(&plan.run, Wish::Settle).await.is_none(), "{what}");
            Outcome::Done
        }
        Ok(ending) if is_undone(&ending) => ending.outcome,
        // A journal that could not be written, or a retire that failed: somebody goes on with it.
        stopped => {
            assert!(
                stopped.is_err() || stopped.as_ref().is_ok_and(|it| it.outcome == Outcome::Stuck),
                "{what}: {stopped:?}"
            );
            // Where it had not even begun, there is nothing to be undone.
            bench.recover(&plan.run, Wish::GoOn).await.map_or(Outcome::Unwound, |ending| ending.outcome)
        }
    };
    assert!(!matches!(outcome, Outcome::Stuck | Outcome::Superseded), "{what}: {outcome:?}");
    outcome != Outcome::Done
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_is_settled_by_looking() {
    let (calls, wanted) = Bench::undisturbed().await;
    let (mut done, mut undone) = (0, 0);
    let mut bench = Bench::new().await;
    for (service, operation, nth) in changes(&calls).into_iter().step_by(every(3)) {
        for when in [When::Before, When::After] {
            let what = format!("{service} {operation} number {nth}, answer lost {when:?}");
            let fault = strike(service, &operation, nth, when, Effect::LoseAnswer);
            if is_undone_by(&bench, fault, &what).await {
                bench.assert_as_before(&what).await;
                undone += 1;
            } else {
                assert_eq!(bench.kinds().await, wanted, "{what}");
                done += 1;
                bench = Bench::new().await;
            }
        }
    }
    eprintln!("{} lost answers: {done} runs were done all the same, {undone} undone", done + undone);
    assert!(done > 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_leaves_nothing_wherever_it_strikes() {
    let (calls, wanted) = Bench::undisturbed().await;
    let (mut done, mut undone) = (0, 0);
    let mut bench = Bench::new().await;
    let (first, later): (Vec<_>, Vec<_>) = changes(&calls).into_iter().partition(|(_, _, nth)| *nth == 0);
    for (service, operation, nth) in first.into_iter().chain(later.into_iter().step_by(every(6))) {
        // Later calls of an operation differ by what they are about, not by what they may be answered.
        let codes = if nth == 0 { [common(service), special(&operation)].concat() } else { vec![common(service)[0]] };
        for code in codes {
            let what = format!("{service} {operation} number {nth} answered {code}");
            let effect = Effect::Error { code: code.into(), status: None };
            if is_undone_by(&bench, strike(service, &operation, nth, When::Before, effect), &what).await {
                bench.assert_as_before(&what).await;
                undone += 1;
            } else {
                assert_eq!(bench.kinds().await, wanted, "{what}");
                done += 1;
                bench = Bench::new().await;
            }
        }
    }
    eprintln!("{} errors: {done} runs were done all the same, {undone} undone", done + undone);
    assert!(undone > 0);
}
