output "balancer" {
  description = "What the app's domain has to point at: a CNAME, or an alias record of Route 53."
  value       = aws_lb.app.dns_name
}

output "deploy_role" {
  description = "What CI exchanges its token for."
  value       = one(aws_iam_role.deploy[*].arn)
}

output "alcedo" {
  description = "What alcedo.yaml has to say."
  value = {
    "publish.bucket"          = aws_s3_bucket.releases.bucket
    "bake.security_group"     = aws_security_group.builder.name
    "launch.subnets"          = [for subnet in aws_subnet.public : subnet.tags.Name]
    "launch.security_groups"  = [aws_security_group.servers.name]
    "launch.instance_profile" = aws_iam_instance_profile.servers.name
    "flip.listener"           = { load_balancer = aws_lb.app.name, port = aws_lb_listener.app.port }
  }
}
