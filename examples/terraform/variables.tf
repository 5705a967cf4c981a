variable "region" {
  description = "Where everything stands; the same as aws.region in alcedo.yaml."
  type        = string
  default     = "eu-west-1"
}

variable "app" {
  description = "The app's name, as alcedo.yaml has it. What is made here is named after it."
  type        = string
  default     = "hello"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$", var.app))
    error_message = "Alcedo takes lower-case letters, digits and hyphens, at most 20; a letter first, no hyphen last."
  }
}

variable "bucket" {
  description = "The bucket's name, unique in all of AWS; the same as publish.bucket in alcedo.yaml."
  type        = string
  default     = "example-hello-releases"
}

variable "port" {
  description = "The app's HTTP port on a server; the same as launch.port in alcedo.yaml."
  type        = number
  default     = 8080
}

variable "network" {
  description = "The VPC's addresses."
  type        = string
  default     = "10.20.0.0/16"
}

variable "subnets" {
  description = "A subnet's addresses, by the letter of its zone: at least two zones, which is what a balancer takes."
  type        = map(string)
  default = {
    a = "10.20.0.0/24"
    b = "10.20.1.0/24"
  }
}

variable "certificate_arn" {
  description = "A certificate of ACM. With it the app is served by HTTPS on port 443; without it, by HTTP on port 80."
  type        = string
  default     = null
}

variable "policy_file" {
  description = "What CI may do, as `alcedo iam-policy --env production` writes it."
  type        = string
  default     = "alcedo-policy.json"
}

variable "github" {
  description = <<-EOT
    The repository on GitHub whose branch may deploy. `repository` is what stands after `repo:` in the subject of its
    tokens: owner@id/name@id, or owner/name where it was made before 15 July 2026, not renamed since, and not opted in.
    `provider_arn`, where the account trusts GitHub already: it takes one provider of a kind.
  EOT
  type = object({
    repository   = string
    branch       = optional(string, "main")
    provider_arn = optional(string)
  })
  default = null

  validation {
    condition     = var.github == null || can(regex("^[^/*?:]+/[^/*?:]+$", var.github.repository))
    error_message = "One repository, as owner/name or owner@id/name@id, without wildcards."
  }
}

variable "circleci" {
  description = <<-EOT
    The project on CircleCI whose branch may deploy. `organization` and `project` are the ids that its settings show,
    `origin` is the repository: github.com/owner/name. `provider_arn`, where the account trusts the organization already.
  EOT
  type = object({
    organization = string
    project      = string
    origin       = string
    branch       = optional(string, "main")
    provider_arn = optional(string)
  })
  default = null

  validation {
    condition     = var.circleci == null || !can(regex("[*?]", join("", [for part in var.circleci : part if part != null])))
    error_message = "No wildcards: they would let others in."
  }
}
