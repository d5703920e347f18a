# find_package(goldenctl) gives the target goldenctl::tap, the folder of goldenctl_tap.h.
if(NOT TARGET goldenctl::tap)
  get_filename_component(_goldenctl_include "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)
  add_library(goldenctl::tap INTERFACE IMPORTED)
  set_target_properties(goldenctl::tap PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${_goldenctl_include}")
  unset(_goldenctl_include)
endif()
