# shellcheck shell=bash
# What tests/run and tests/stack/stack both need; sourced, never run.

# Prints the home of a JDK 17 or newer (java, javac and keytool); fails when there is none.
# PATH's java may be an older one beside a good one, so the usual places are looked at, too.
jdk_home() {
  local home version
  for home in "${JAVA_HOME:-}" "$(path_jdk)" /usr/lib/jvm/*17* /usr/lib/jvm/*2[1-9]*; do
    [[ -n $home && -x $home/bin/javac && -x $home/bin/java ]] || continue
    version=$("$home/bin/javac" -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p')
    if ((${version:-0} >= 17)); then
      echo "$home"
      return 0
    fi
  done
  return 1
}

# The home of the javac on PATH, symbolic links resolved; empty when there is none.
path_jdk() {
  local javac
  javac=$(command -v javac) || return 0
  while [[ -L $javac ]]; do
    local target
    target=$(readlink "$javac")
    [[ $target == /* ]] || target=$(dirname "$javac")/$target
    javac=$target
  done
  dirname "$(dirname "$javac")"
}
