# Groups without a single `ingress` or `egress` block, and each rule a resource of its own. Alcedo opens a port of the
# servers' and the builder's group for the machine it runs on, and closes it again, several times in a deploy. To a group
# with rules in blocks those are all the rules there may be, so that an apply in such a moment would close the port; rules
# that are resources leave those alone that others made.

# The balancer: open to everybody.
resource "aws_security_group" "balancer" {
  name        = "${var.app}-balancer"
  description = "The balancer of ${var.app}"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_ingress_rule" "visitors" {
  for_each = toset(local.secured ? ["80", "443"] : ["80"])

  security_group_id = aws_security_group.balancer.id
  description       = "Visitors"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
}

resource "aws_vpc_security_group_egress_rule" "balancer_to_servers" {
  security_group_id            = aws_security_group.balancer.id
  description                  = "Requests and health checks"
  referenced_security_group_id = aws_security_group.servers.id
  ip_protocol                  = "tcp"
  from_port                    = var.port
  to_port                      = var.port
}

# The servers: launch.security_groups in alcedo.yaml.
resource "aws_security_group" "servers" {
  name        = var.app
  description = "The servers of ${var.app}"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_ingress_rule" "servers_from_balancer" {
  security_group_id            = aws_security_group.servers.id
  description                  = "Requests and health checks"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = var.port
  to_port                      = var.port
}

resource "aws_vpc_security_group_egress_rule" "servers_to_all" {
  security_group_id = aws_security_group.servers.id
  description       = "What the app asks of others"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

# The builder: bake.security_group in alcedo.yaml. Nobody comes in, but for Alcedo while it bakes.
resource "aws_security_group" "builder" {
  name        = "${var.app}-builder"
  description = "The builder of the images of ${var.app}"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_egress_rule" "builder_to_all" {
  security_group_id = aws_security_group.builder.id
  description       = "What provisioning downloads"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}
