//! Throttling, as the SDK sees it and by the region's clock.

use jiff::SignedDuration;

use crate::support::{TestRegion, code};

#[tokio::test]
async fn the_sixth_launch_in_a_burst_is_refused_and_two_a_second_come_back() {
    let region = TestRegion::start_with(|config| config.lags.throttle = true).await;
    let client = region.ec2();
    let launch = || {
        let call = client.run_instances().image_id("ami-0123456789abcdef0").instance_type("t3.micro".into());
        call.min_count(1).max_count(1).send()
    };
    for _ in 0..5 {
        assert_eq!(code(launch().await), "InvalidAMIID.NotFound", "a call that fails is counted too");
    }
    let refused = launch().await.unwrap_err();
    assert_eq!(refused.raw_response().unwrap().status().as_u16(), 503);
    assert_eq!(code::<(), _>(Err(refused)), "RequestLimitExceeded");
    region.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(code(launch().await), "InvalidAMIID.NotFound");
    assert_eq!(code(launch().await), "InvalidAMIID.NotFound");
    assert_eq!(code(launch().await), "RequestLimitExceeded");
    client.describe_vpcs().send().await.unwrap();
}
