#!/bin/sh
# Renders this folder's manifests from the chart; with --check it compares instead and fails on a difference.
# HELM names the helm binary.
set -eu
cd "$(dirname "$0")"
helm=${HELM:-helm}
command -v "$helm" >/dev/null || { echo "generate.sh: $helm is not installed; set HELM" >&2; exit 2; }
folder=.
if [ "${1:-}" = --check ]; then
  folder=$(mktemp -d)
  trap 'rm -r "$folder"' EXIT
fi
status=0
for part in serviceaccount rbac deployment service; do
  {
    echo "# Rendered from charts/soak-operator/templates/$part.yaml by deploy/generate.sh: change it there."
    "$helm" template soak-operator ../charts/soak-operator --namespace soak-system --set crds.install=false \
      --show-only "templates/$part.yaml"
  } >"$folder/$part.yaml"
  [ "$folder" = . ] || diff -u "$part.yaml" "$folder/$part.yaml" || status=1
done
[ $status = 0 ] || echo "generate.sh: deploy/ is not what the chart renders: run deploy/generate.sh" >&2
exit $status
