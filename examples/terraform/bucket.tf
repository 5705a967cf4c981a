# Artifacts, the runs' journals and the lock: publish.bucket in alcedo.yaml. Without `force_destroy`, `terraform destroy`
# stops at a bucket that still has something in it, which is as it should be for the only record of what was released.
resource "aws_s3_bucket" "releases" {
  bucket = var.bucket
}

resource "aws_s3_bucket_public_access_block" "releases" {
  bucket = aws_s3_bucket.releases.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "releases" {
  bucket = aws_s3_bucket.releases.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

# Alcedo needs no versioning: its conditional writes ask for the current version, and a deleted object is to them as one
# that never was (Amazon S3 User Guide, "Conditional write behavior"). It is on so that an artifact that somebody deleted by
# mistake can be had back for a week.
resource "aws_s3_bucket_versioning" "releases" {
  bucket = aws_s3_bucket.releases.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "releases" {
  bucket = aws_s3_bucket.releases.id

  # A run renews its lock every twenty seconds, and each time leaves a version of some hundred bytes behind.
  rule {
    id     = "old-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = 7
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  # `alcedo sweep` aborts what a dead run had begun to upload; this does where nobody sweeps. What is current is never
  # expired by age: how many versions stay is for publish.keep to say.
  rule {
    id     = "unfinished-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }

  depends_on = [aws_s3_bucket_versioning.releases]
}
