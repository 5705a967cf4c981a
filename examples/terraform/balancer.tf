locals {
  secured = var.certificate_arn != null
}

resource "aws_lb" "app" {
  name            = var.app
  subnets         = [for subnet in aws_subnet.public : subnet.id]
  security_groups = [aws_security_group.balancer.id]

  # AWS makes no balancer for the internet in a network that has no gateway.
  depends_on = [aws_internet_gateway.main]
}

# The production listener: flip.listener in alcedo.yaml.
resource "aws_lb_listener" "app" {
  load_balancer_arn = aws_lb.app.arn
  port              = local.secured ? 443 : 80
  protocol          = local.secured ? "HTTPS" : "HTTP"
  certificate_arn   = var.certificate_arn
  ssl_policy        = local.secured ? "ELBSecurityPolicy-TLS13-1-2-2021-06" : null

  # What it does until the first deploy.
  default_action {
    type = "fixed-response"

    fixed_response {
      content_type = "text/plain"
      message_body = "Nothing is deployed yet.\n"
      status_code  = "503"
    }
  }

  lifecycle {
    # From the first deploy on, Alcedo says which fleet gets the traffic: a flip is a change of this action. Without this
    # line the next apply would put the 503 back, and take the app out of service.
    ignore_changes = [default_action]
  }
}

# Whoever comes without TLS is sent to where the app is. Alcedo has no part in this listener.
resource "aws_lb_listener" "redirect" {
  count = local.secured ? 1 : 0

  load_balancer_arn = aws_lb.app.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type = "redirect"

    redirect {
      port        = "443"
      protocol    = "HTTPS"
      status_code = "HTTP_301"
    }
  }

  # Where a certificate comes later, the app's listener has to leave this port first.
  depends_on = [aws_lb_listener.app]
}
