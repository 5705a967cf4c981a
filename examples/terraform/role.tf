# The servers' role: launch.instance_profile in alcedo.yaml. It may do nothing yet; what the app needs is attached here.
# Role and profile have one name, as where the console makes them: the file names the profile, and what a deployer must be
# allowed to pass to a server is the role.
resource "aws_iam_role" "servers" {
  name = var.app

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_instance_profile" "servers" {
  name = var.app
  role = aws_iam_role.servers.name
}

# The deployer's role, for each CI that a variable names: who issues its tokens, for whom, and what a token has to say of
# the job. Forks, pull requests and other branches have other subjects, and do not get in.
locals {
  github_issuer   = "token.actions.githubusercontent.com"
  circleci_issuer = try("oidc.circleci.com/org/${var.circleci.organization}", null)

  ci = { for name, ci in {
    github = var.github == null ? null : {
      issuer   = local.github_issuer
      audience = "sts.amazonaws.com"
      provider = var.github.provider_arn
      conditions = {
        StringEquals = {
          "${local.github_issuer}:aud" = "sts.amazonaws.com"
          # A job that names an environment has another subject: it ends with `:environment:NAME`.
          "${local.github_issuer}:sub" = "repo:${var.github.repository}:ref:refs/heads/${var.github.branch}"
        }
      }
    }

    circleci = var.circleci == null ? null : {
      issuer   = local.circleci_issuer
      audience = var.circleci.organization
      provider = var.circleci.provider_arn
      conditions = {
        StringEquals = {
          "${local.circleci_issuer}:aud" = var.circleci.organization
        }
        # The subject in CIRCLE_OIDC_TOKEN_V2. Whoever pushed may deploy, so the user's id is left open, by its length: a `*`
        # would match slashes as well, and with them another branch whose name goes on like the rest of this text.
        StringLike = {
          "${local.circleci_issuer}:sub" = join("/", [
            "org", var.circleci.organization,
            "project", var.circleci.project,
            "user", "????????-????-????-????-????????????",
            "vcs-origin", var.circleci.origin,
            "vcs-ref/refs/heads", var.circleci.branch,
          ])
        }
      }
    }
  } : name => ci if ci != null }
}

resource "aws_iam_openid_connect_provider" "ci" {
  for_each = { for name, ci in local.ci : name => ci if ci.provider == null }

  url            = "https://${each.value.issuer}"
  client_id_list = [each.value.audience]
}

resource "aws_iam_role" "deploy" {
  count = length(local.ci) > 0 ? 1 : 0

  name = "deploy-${var.app}"
  # A deploy that moves traffic by shares and watches a hold outlasts the one hour that is the default.
  max_session_duration = 4 * 60 * 60

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [for name, ci in local.ci : {
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = ci.provider != null ? ci.provider : aws_iam_openid_connect_provider.ci[name].arn }
      Condition = ci.conditions
    }]
  })
}

# Inline, because it may be longer so: 10,240 characters, and a managed policy 6,144 (IAM User Guide, "IAM and AWS STS
# quotas").
resource "aws_iam_role_policy" "deploy" {
  count = length(aws_iam_role.deploy)

  name   = "alcedo"
  role   = aws_iam_role.deploy[0].name
  policy = file(var.policy_file)
}
