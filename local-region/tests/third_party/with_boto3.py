"""The local region as boto3 sees it. The endpoint, region and keys are in the environment; a failed check ends it."""

import base64
import hashlib
import json
import time
from datetime import datetime, timedelta, timezone

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

CONFIG = Config(retries={"mode": "standard", "max_attempts": 8}, s3={"addressing_style": "path"})
FAST = {"Delay": 1, "MaxAttempts": 30}


def refused(code, call, **arguments):
    """Makes a call that must be refused with this code."""
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
    else:
        raise AssertionError(f"not refused with {code}: {arguments}")


def seen(what, look, seconds=10):
    """Waits until a read shows what a write has made: reads lag behind."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"never seen: {what}"
        time.sleep(0.02)


def instances(ec2):
    image = ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": ["alcedo/*"]}])["Images"][0]
    assert image["RootDeviceType"] == "ebs" and image["ImdsSupport"] == "v2.0", image
    launch = {
        "ImageId": image["ImageId"],
        "InstanceType": "t3.micro",
        "MinCount": 2,
        "MaxCount": 2,
        "ClientToken": "boto3",
        "UserData": "#!/bin/sh\ntrue\n",
        "TagSpecifications": [{"ResourceType": kind, "Tags": [{"Key": "by", "Value": "boto3"}]}
                              for kind in ("instance", "volume", "network-interface")],
    }
    first, second = ec2.run_instances(**launch), ec2.run_instances(**launch)
    ids = [instance["InstanceId"] for instance in first["Instances"]]
    assert ids == [instance["InstanceId"] for instance in second["Instances"]]
    refused("IdempotentParameterMismatch", ec2.run_instances, **{**launch, "MaxCount": 3})

    ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig=FAST)
    by_tag = [{"Name": "tag:by", "Values": ["boto3"]}]
    assert len(ec2.describe_volumes(Filters=by_tag)["Volumes"]) == 2
    assert len(ec2.describe_network_interfaces(Filters=by_tag)["NetworkInterfaces"]) == 2
    pages = ec2.get_paginator("describe_instances").paginate(Filters=by_tag, PaginationConfig={"PageSize": 5})
    assert sorted(it["InstanceId"] for page in pages for r in page["Reservations"] for it in r["Instances"]) == sorted(ids)
    told = ec2.describe_instance_attribute(InstanceId=ids[0], Attribute="userData")["UserData"]["Value"]
    assert base64.b64decode(told).startswith(b"#!/bin/sh")

    image_id = ec2.create_image(InstanceId=ids[0], Name="made by boto3")["ImageId"]
    refused("InvalidAMIName.Duplicate", ec2.create_image, InstanceId=ids[0], Name="made by boto3")
    # The second waiter takes an image that is not seen yet for one that failed.
    ec2.get_waiter("image_exists").wait(ImageIds=[image_id], WaiterConfig=FAST)
    ec2.get_waiter("image_available").wait(ImageIds=[image_id], WaiterConfig=FAST)
    snapshots = [it["Ebs"]["SnapshotId"] for it in ec2.describe_images(ImageIds=[image_id])["Images"][0]["BlockDeviceMappings"]]
    ec2.deregister_image(ImageId=image_id)
    for snapshot in snapshots:
        ec2.delete_snapshot(SnapshotId=snapshot)

    ec2.terminate_instances(InstanceIds=ids)
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig=FAST)
    seen("no volumes", lambda: not ec2.describe_volumes(Filters=by_tag)["Volumes"])


def security_groups(ec2):
    group = ec2.create_security_group(GroupName="boto3", Description="made by boto3")["GroupId"]
    ec2.get_waiter("security_group_exists").wait(GroupIds=[group], WaiterConfig=FAST)
    ssh = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.1/32"}]}]
    rule = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=ssh)["SecurityGroupRules"][0]
    refused("InvalidPermission.Duplicate", ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=ssh)
    seen("the rule", lambda: ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"])
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]])
    refused("InvalidPermission.NotFound", ec2.revoke_security_group_ingress, GroupId=group, IpPermissions=ssh)
    ec2.delete_security_group(GroupId=group)
    refused("InvalidGroup.NotFound", ec2.describe_security_groups, GroupIds=[group])


def objects(s3):
    s3.create_bucket(Bucket="boto3")
    s3.put_object(Bucket="boto3", Key="k", Body=b"one", IfNoneMatch="*", ChecksumAlgorithm="SHA256")
    refused("PreconditionFailed", s3.put_object, Bucket="boto3", Key="k", Body=b"two", IfNoneMatch="*")
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    refused("BadDigest", s3.put_object, Bucket="boto3", Key="k", Body=b"two", ChecksumSHA256=wrong)
    got = s3.get_object(Bucket="boto3", Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"one"
    assert got["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"one").digest()).decode()

    s3.delete_object(Bucket="boto3", Key="k")
    refused("404", s3.head_object, Bucket="boto3", Key="k")
    s3.delete_bucket(Bucket="boto3")
    refused("NoSuchBucket", s3.list_objects_v2, Bucket="boto3")


def trail(elbv2, cloudtrail):
    begun = datetime.now(timezone.utc).replace(microsecond=0)
    groups = []
    for port in (80, 81, 82):
        made = elbv2.create_target_group(Name=f"boto3-{port}", Protocol="HTTP", Port=port, VpcId=vpc(ec2_client))
        groups.append(made["TargetGroups"][0]["TargetGroupArn"])
    for group in groups:
        elbv2.delete_target_group(TargetGroupArn=group)
    asked = {"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "DeleteTargetGroup"}], "StartTime": begun}
    pages = cloudtrail.get_paginator("lookup_events").paginate(**asked, PaginationConfig={"PageSize": 2})
    events = [event for page in pages for event in page["Events"]]
    # The newest come first.
    records = [json.loads(event["CloudTrailEvent"]) for event in events]
    assert [it["requestParameters"]["targetGroupArn"] for it in records] == groups[::-1], records
    assert all(it["userIdentity"]["arn"].endswith(":user/local-region") for it in records), records
    assert all("Boto3/" in it["userAgent"] and it["sourceIPAddress"] for it in records), records
    assert all(event["EventTime"] >= begun for event in events), events
    before = {"StartTime": begun - timedelta(hours=1), "EndTime": begun - timedelta(seconds=1)}
    assert not cloudtrail.lookup_events(**before)["Events"]
    refused("InvalidTimeRangeException", cloudtrail.lookup_events, StartTime=begun, EndTime=begun - timedelta(hours=1))
    two = [{"AttributeKey": "EventName", "AttributeValue": name} for name in ("ModifyRule", "ModifyListener")]
    refused("InvalidLookupAttributesException", cloudtrail.lookup_events, LookupAttributes=two)


def vpc(ec2):
    return ec2.describe_vpcs()["Vpcs"][0]["VpcId"]


ec2_client = boto3.client("ec2", config=CONFIG)
assert boto3.client("sts").get_caller_identity()["Account"] == "000000000000"
refused("Unsupported", ec2_client.create_vpc, CidrBlock="10.0.0.0/16")
instances(ec2_client)
security_groups(ec2_client)
objects(boto3.client("s3", config=CONFIG))
trail(boto3.client("elbv2", config=CONFIG), boto3.client("cloudtrail", config=CONFIG))
print("boto3: every check held")
