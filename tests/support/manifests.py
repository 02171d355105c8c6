"""Holds Kubernetes manifests against the schemas of Kubernetes, and prints their documents as a JSON list.

Usage: manifests.py VERSION FILE... ('-' is standard input)
"""

import json
import sys

import kubernetes_validate
import yaml

version, *files = sys.argv[1:]
documents = []
for file in files:
    text = sys.stdin.read() if file == "-" else open(file).read()
    documents += [document for document in yaml.safe_load_all(text) if document is not None]
wrong = []
for document in documents:
    kind, group = document["kind"], document["apiVersion"]
    for item in document["items"] if kind == "List" else [document]:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            wrong.append(f"{item['kind']} {item['metadata']['name']}: {error}")
if wrong:
    sys.exit("\n".join(wrong))
json.dump(documents, sys.stdout)
