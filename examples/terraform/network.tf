# Public subnets, one a zone, and nothing else: the balancer needs them, and CI reaches builders and new servers at their
# public addresses. What keeps everybody else out are the security groups. Private subnets would need a NAT gateway for
# the servers' way out, and a CI machine inside the network (bake.private_address).

resource "aws_vpc" "main" {
  cidr_block = var.network

  tags = { Name = var.app }
}

resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id

  tags = { Name = var.app }
}

resource "aws_subnet" "public" {
  for_each = var.subnets

  vpc_id                  = aws_vpc.main.id
  availability_zone       = "${var.region}${each.key}"
  cidr_block              = each.value
  map_public_ip_on_launch = true

  # alcedo.yaml finds a subnet by this tag, so it must be the only one of its name in the region.
  tags = { Name = "${var.app}-${each.key}" }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id

  tags = { Name = "${var.app}-public" }
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.main.id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}
