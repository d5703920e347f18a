# Builds InfiniCore's runtime and CPU operators as the two libraries its C API needs.
#
# InfiniCore's own build calls xmake, which not every machine can have; its CPU part is
# plain C++17. INFINICORE_SOURCE is the unpacked source package, the result is installed
# as include/ and lib/ under CMAKE_INSTALL_PREFIX, the layout of its own installer.
cmake_minimum_required(VERSION 3.22)
project(infinicore-cpu LANGUAGES CXX)

set(INFINICORE_SOURCE "" CACHE PATH "unpacked InfiniCore source package")
if(NOT EXISTS "${INFINICORE_SOURCE}/include/infinirt.h")
  message(FATAL_ERROR "INFINICORE_SOURCE has no include/infinirt.h: ${INFINICORE_SOURCE}")
endif()
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
find_package(OpenMP COMPONENTS CXX)

set(src "${INFINICORE_SOURCE}/src")
file(GLOB runtime_sources CONFIGURE_DEPENDS
  ${src}/utils/*.cc ${src}/infinirt/*.cc ${src}/infinirt/cpu/*.cc)
file(GLOB operator_sources CONFIGURE_DEPENDS
  ${src}/utils/*.cc ${src}/infiniop/*.cc ${src}/infiniop/devices/handle.cc
  ${src}/infiniop/devices/cpu/*.cc ${src}/infiniop/reduce/cpu/*.cc
  ${src}/infiniop/ops/*/operator.cc ${src}/infiniop/ops/*/cpu/*.cc)

add_library(infinirt SHARED ${runtime_sources})
add_library(infiniop SHARED ${operator_sources})
target_link_libraries(infiniop PUBLIC infinirt)
foreach(library infinirt infiniop)
  target_include_directories(${library} PRIVATE ${INFINICORE_SOURCE}/include ${src})
  target_compile_definitions(${library} PRIVATE ENABLE_CPU_API)
  target_compile_options(${library} PRIVATE -w)
  if(OpenMP_CXX_FOUND)
    target_compile_definitions(${library} PRIVATE ENABLE_OMP)
    target_link_libraries(${library} PRIVATE OpenMP::OpenMP_CXX)
  endif()
endforeach()
set_target_properties(infinirt infiniop PROPERTIES
  INSTALL_RPATH "$ORIGIN" BUILD_WITH_INSTALL_RPATH ON)

install(TARGETS infinirt infiniop LIBRARY DESTINATION lib)
install(DIRECTORY ${INFINICORE_SOURCE}/include/ DESTINATION include)
