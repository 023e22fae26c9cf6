# Included by CMake right after Horovod's project() call (CMAKE_PROJECT_horovod_INCLUDE).

# Horovod 0.28.1 asks for C++14, the headers of torch 2.x need C++17: what CMake calls C++14 compiles as C++17.
set(CMAKE_CXX14_STANDARD_COMPILE_OPTION "-std=c++17")
set(CMAKE_CXX14_EXTENSION_COMPILE_OPTION "-std=gnu++17")

# A CPU build: torch's CUDA support is left alone, even where half a CUDA toolkit lies about.
if(NOT GALAXYSPARK_WITH_CUDA)
  macro(galaxyspark_without_cuda variable access value)
    if("${access}" STREQUAL "MODIFIED_ACCESS" AND NOT "${value}" STREQUAL "FALSE")
      set(${variable} FALSE)
    endif()
  endmacro()
  variable_watch(Pytorch_CUDA galaxyspark_without_cuda)
endif()
