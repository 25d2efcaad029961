"""A small network: one subnet in every zone that offers the machines, and nobody let in.

Public subnets (the default) cost nothing: a machine has an address of its own, to speak out with, and no rule lets
anybody in. Private subnets have no way to or from the internet; what a machine needs of AWS comes through endpoints
that cost by the hour, machines or not, so they stand in one zone only.
"""

import ipaddress
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

VPC_CIDR = "10.20.0.0/16"
# What a machine without internet calls: Systems Manager (three names), the registry (two), its log, its group, and the
# topic that hears of a run's end. Several machines also ask for each other's addresses.
PRIVATE_SERVICES = ("ssm", "ssmmessages", "ec2messages", "ecr.api", "ecr.dkr", "logs", "autoscaling", "sns")


@dataclass(frozen=True)
class Network:
    subnets: list[pulumi.Output[str]]
    security_group: pulumi.Output[str]


def make_network(name: str, region: str, zones: tuple[str, ...], private: bool, nodes: int) -> Network:
    vpc = aws.ec2.Vpc(
        name,
        cidr_block=VPC_CIDR,
        enable_dns_support=True,
        enable_dns_hostnames=True,
        tags={"Name": name},
    )
    # Every network comes with a group in which all may speak to all; nothing uses it, so it shall allow nothing.
    aws.ec2.DefaultSecurityGroup(name, vpc_id=vpc.id, ingress=[], egress=[])
    table = aws.ec2.RouteTable(name, vpc_id=vpc.id, tags={"Name": name})
    subnets = [_make_subnet(name, vpc, table, zone, public=not private) for zone in zones]
    s3 = aws.ec2.VpcEndpoint(
        f"{name}-s3",
        vpc_id=vpc.id,
        service_name=f"com.amazonaws.{region}.s3",
        vpc_endpoint_type="Gateway",
        route_table_ids=[table.id],
        tags={"Name": f"{name}-s3"},
    )
    machines = aws.ec2.SecurityGroup(
        f"{name}-machines",
        vpc_id=vpc.id,
        description="The GPU machines",
        tags={"Name": f"{name}-machines"},
    )
    if private:
        services = (*PRIVATE_SERVICES, "ec2") if nodes > 1 else PRIVATE_SERVICES
        _reach_aws_only(name, region, services, vpc, subnets[0], machines, s3)
    else:
        gateway = aws.ec2.InternetGateway(name, vpc_id=vpc.id, tags={"Name": name})
        aws.ec2.Route(name, route_table_id=table.id, destination_cidr_block="0.0.0.0/0", gateway_id=gateway.id)
        _let_out(f"{name}-out", machines, "anywhere", cidr="0.0.0.0/0")
    if nodes > 1:
        _let_peers_speak(name, machines)
    return Network([subnet.id for subnet in subnets], machines.id)


def _make_subnet(name: str, vpc: aws.ec2.Vpc, table: aws.ec2.RouteTable, zone: str, public: bool) -> aws.ec2.Subnet:
    # A zone's own letter chooses its addresses, so that a zone that comes or goes moves no other subnet.
    blocks = list(ipaddress.ip_network(VPC_CIDR).subnets(new_prefix=20))
    subnet = aws.ec2.Subnet(
        f"{name}-{zone}",
        vpc_id=vpc.id,
        availability_zone=zone,
        cidr_block=str(blocks[ord(zone[-1]) - ord("a")]),
        map_public_ip_on_launch=public,
        tags={"Name": f"{name}-{zone}"},
    )
    aws.ec2.RouteTableAssociation(f"{name}-{zone}", subnet_id=subnet.id, route_table_id=table.id)
    return subnet


def _reach_aws_only(
    name: str,
    region: str,
    services: tuple[str, ...],
    vpc: aws.ec2.Vpc,
    subnet: aws.ec2.Subnet,
    machines: aws.ec2.SecurityGroup,
    s3: aws.ec2.VpcEndpoint,
) -> None:
    """Endpoints for `services` in one subnet, which machines may call; machines may call them and S3 only."""
    endpoints = aws.ec2.SecurityGroup(
        f"{name}-endpoints",
        vpc_id=vpc.id,
        description="AWS services, for the machines",
        tags={"Name": f"{name}-endpoints"},
    )
    aws.vpc.SecurityGroupIngressRule(
        f"{name}-endpoints",
        security_group_id=endpoints.id,
        description="from the machines",
        ip_protocol="tcp",
        from_port=443,
        to_port=443,
        referenced_security_group_id=machines.id,
    )
    for service in services:
        aws.ec2.VpcEndpoint(
            f"{name}-{service}",
            vpc_id=vpc.id,
            service_name=f"com.amazonaws.{region}.{service}",
            vpc_endpoint_type="Interface",
            private_dns_enabled=True,
            subnet_ids=[subnet.id],
            security_group_ids=[endpoints.id],
            tags={"Name": f"{name}-{service}"},
        )
    _let_out(f"{name}-to-aws", machines, "AWS services", port=443, group=endpoints)
    _let_out(f"{name}-to-s3", machines, "S3", port=443, prefix_list=s3.prefix_list_id)


def _let_peers_speak(name: str, machines: aws.ec2.SecurityGroup) -> None:
    """Machines of one run exchange gradients: the group admits its own members, and still no address."""
    aws.vpc.SecurityGroupIngressRule(
        f"{name}-peers",
        security_group_id=machines.id,
        description="from the other machines of the run",
        ip_protocol="-1",
        referenced_security_group_id=machines.id,
    )
    _let_out(f"{name}-peers", machines, "the other machines", group=machines)


def _let_out(
    name: str,
    machines: aws.ec2.SecurityGroup,
    where: str,
    port: int | None = None,
    cidr: str | None = None,
    group: aws.ec2.SecurityGroup | None = None,
    prefix_list: pulumi.Input[str] | None = None,
) -> None:
    """Let machines speak to a range of addresses, a group or a prefix list; over TCP to one port, or freely."""
    aws.vpc.SecurityGroupEgressRule(
        name,
        security_group_id=machines.id,
        description=f"to {where}",
        ip_protocol="tcp" if port else "-1",
        from_port=port,
        to_port=port,
        cidr_ipv4=cidr,
        referenced_security_group_id=group.id if group else None,
        prefix_list_id=prefix_list,
    )
