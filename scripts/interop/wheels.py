"""Definitions out of wheels of programs that cannot be imported here: their sources are read, and the
functions and classes that are asked for are run by themselves, without the engines around them."""

import ast
import zipfile


class Wheel:
    """A wheel, or a directory that one was unpacked into."""

    def __init__(self, path):
        self.path = path
        self.zip = zipfile.ZipFile(path) if path.is_file() else None
        self.trees = {}

    def tree(self, name):
        """The syntax tree of a source file."""
        if name not in self.trees:
            text = self.zip.read(name).decode() if self.zip else (self.path / name).read_text()
            self.trees[name] = ast.parse(text)
        return self.trees[name]

    def run(self, name, wanted, namespace):
        """Runs the definitions and constants of these names; what they do not define is in the namespace."""
        body = [ast.ImportFrom("__future__", [ast.alias("annotations")], 0)]
        for node in self.tree(name).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if getattr(node, "name", None) in wanted or set(names) & set(wanted):
                body.append(node)
        exec(compile(ast.fix_missing_locations(ast.Module(body, [])), name, "exec"), namespace)
        return namespace


class Classes:
    """Attributes of classes, as their bodies and those of their bases say them, without running the classes."""

    def __init__(self, wheel, folder, namespace):
        self.wheel, self.folder, self.namespace = wheel, folder, namespace

    def body(self, module, name):
        """A class's syntax tree and the module that defines it."""
        tree = self.wheel.tree(f"{self.folder}/{module}.py")
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return node, module
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                if any((alias.asname or alias.name) == name for alias in node.names):
                    return self.body(node.module, name)
        return None, module

    def attribute(self, module, name, attribute, default=None):
        node, module = self.body(module, name)
        if node is None:
            return default
        for item in node.body:
            target = item.targets[0] if isinstance(item, ast.Assign) else getattr(item, "target", None)
            if isinstance(target, ast.Name) and target.id == attribute and item.value is not None:
                return self.value(module, item.value)
        for base in node.bases:
            if isinstance(base, ast.Name):
                found = self.attribute(module, base.id, attribute)
                if found is not None:
                    return found
        return default

    def value(self, module, expression):
        """An expression of a class's body, in which other classes' attributes may stand."""
        owner = self

        class Lookup(ast.NodeTransformer):
            def visit_Attribute(self, node):
                if isinstance(node.value, ast.Name) and owner.body(module, node.value.id)[0] is not None:
                    found = owner.attribute(module, node.value.id, node.attr)
                    owner.namespace[name := f"_{node.value.id}_{node.attr}"] = found
                    return ast.copy_location(ast.Name(name, ast.Load()), node)
                return self.generic_visit(node)

        expression = Lookup().visit(ast.fix_missing_locations(ast.Expression(expression)))
        return eval(compile(ast.fix_missing_locations(expression), module, "eval"), self.namespace)
