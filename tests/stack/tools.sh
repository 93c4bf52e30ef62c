# shellcheck shell=bash
# Functions for tests/run and tests/stack/stack, which source this file.

# Prints the home of a JDK 17 or newer (java, javac and keytool); fails if there is none.
# The java on PATH may be older than another installed one, so this also searches the usual places.
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

# The home of the javac on PATH, with symbolic links resolved; empty if there is none.
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
